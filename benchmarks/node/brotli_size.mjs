// Prints how many bytes a file has after brotli, at the quality that the second argument names.

import fs from "node:fs";
import zlib from "node:zlib";

const [file, quality] = process.argv.slice(2);
const { BROTLI_PARAM_QUALITY, BROTLI_PARAM_SIZE_HINT } = zlib.constants;
const bytes = fs.readFileSync(file);
const params = { [BROTLI_PARAM_QUALITY]: Number(quality), [BROTLI_PARAM_SIZE_HINT]: bytes.length };
console.log(zlib.brotliCompressSync(bytes, { params }).length);
