package wasmgraph

import (
	"os"
	"syscall"

	"github.com/tetratelabs/wazero"
)

// PrepareCacheDir makes a folder for Options.CacheDir, where it is not there yet, and closes it to other users.
func PrepareCacheDir(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(folder)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &os.PathError{Op: "open", Path: folder, Err: syscall.ENOTDIR}
	}
	// What lies there is run as machine code. Nobody but its owner can change the mode.
	return os.Chmod(folder, 0o700)
}

func openCache(folder string) (wazero.CompilationCache, error) {
	err := PrepareCacheDir(folder)
	if err != nil {
		return nil, fail(LoadError, "the cache of compiled code cannot be used: %v", err)
	}
	cache, err := wazero.NewCompilationCacheWithDir(folder)
	if err != nil {
		return nil, fail(LoadError, "the cache of compiled code cannot be used: %v", err)
	}
	return cache, nil
}
