// zlib's format, by the browser.

const INFLATED_MAX_BYTES = 16 << 20;

async function through(stream, bytes, most) {
  const reader = new Blob([bytes]).stream().pipeThrough(stream).getReader();
  const parts = [];
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      return new Uint8Array(await new Blob(parts).arrayBuffer());
    }
    length += value.length;
    if (length > most) {
      await reader.cancel();
      throw new Error(`the data inflates to more than ${most} bytes`);
    }
    parts.push(value);
  }
}

export const canInflate = () => typeof DecompressionStream === "function";

export const inflate = (bytes) =>
  through(new DecompressionStream("deflate"), bytes, INFLATED_MAX_BYTES);

export const deflate = (bytes) => through(new CompressionStream("deflate"), bytes, Infinity);
