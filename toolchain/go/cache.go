package wasmgraph

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/tetratelabs/wazero"
)

// maxCacheNBytes of compiled code are kept; the entries unused longest are removed beyond it.
const maxCacheNBytes = 2 << 30

// sealName is the file of an entry that says what the others held when they were written.
const sealName = "seal"

// codeCache is the entry of one graph in a folder of compiled code. wazero reads back what lies there and runs it as
// machine code, with a checksum over a part of it; so every entry has a seal over all of it, and one whose files
// are not what was written is made again.
type codeCache struct {
	wazero.CompilationCache
	entry string
}

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
	return os.Chmod(folder, 0o700) // which only its owner can
}

// openCache opens the entry of a graph, to be run with or without a time limit.
func openCache(folder string, binary []byte, timed bool) (*codeCache, error) {
	if err := PrepareCacheDir(folder); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%x-%t", sha256.Sum256(binary), timed)
	entry := filepath.Join(folder, name)
	if err := verify(entry); err != nil {
		return nil, err
	}
	cache, err := wazero.NewCompilationCacheWithDir(entry)
	if err != nil {
		return nil, err
	}
	return &codeCache{cache, entry}, nil
}

// verify removes an entry that is not what was written, or not finished.
func verify(entry string) error {
	found, err := sealOf(entry)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	switch written, err := os.ReadFile(filepath.Join(entry, sealName)); {
	case os.IsNotExist(err):
		return os.RemoveAll(entry)
	case err != nil:
		return err
	case bytes.Equal(found, written):
		return nil
	}
	slog.Warn("compiled code is not what was written: compiling again", "entry", entry)
	return os.RemoveAll(entry)
}

// keep seals what was compiled, notes the use, and makes room.
func (c *codeCache) keep() error {
	seal, err := sealOf(c.entry)
	if err != nil {
		return err
	}
	path := filepath.Join(c.entry, sealName)
	if written, _ := os.ReadFile(path); !bytes.Equal(seal, written) {
		if err := os.WriteFile(path, seal, 0o600); err != nil {
			return err
		}
	}
	now := time.Now()
	if err := os.Chtimes(c.entry, now, now); err != nil {
		return err
	}
	return prune(filepath.Dir(c.entry), maxCacheNBytes)
}

// drop removes the entry.
func (c *codeCache) drop() error {
	return os.RemoveAll(c.entry)
}

// sealOf is a digest over the names and contents of an entry's files.
func sealOf(entry string) ([]byte, error) {
	whole := sha256.New()
	err := filepath.WalkDir(entry, func(path string, item fs.DirEntry, err error) error {
		if err != nil || item.IsDir() || path == filepath.Join(entry, sealName) {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(whole, "%q %x\n", path[len(entry):], sha256.Sum256(data))
		return nil
	})
	return []byte(hex.EncodeToString(whole.Sum(nil)) + "\n"), err
}

// prune removes the entries unused longest until the others have at most so many bytes.
func prune(folder string, maxNBytes int64) error {
	type entry struct {
		path   string
		used   time.Time
		nbytes int64
	}
	items, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	var entries []entry
	for _, item := range items {
		found := entry{path: filepath.Join(folder, item.Name())}
		_ = filepath.WalkDir(found.path, func(path string, file fs.DirEntry, err error) error {
			if err != nil {
				return nil // another process has removed it
			}
			if info, err := file.Info(); err == nil {
				found.nbytes += info.Size()
				if path == found.path {
					found.used = info.ModTime()
				}
			}
			return nil
		})
		entries = append(entries, found)
	}
	slices.SortFunc(entries, func(a, b entry) int { return b.used.Compare(a.used) })
	var total int64
	for _, found := range entries {
		if total += found.nbytes; total > maxNBytes {
			if err := os.RemoveAll(found.path); err != nil {
				return err
			}
		}
	}
	return nil
}
