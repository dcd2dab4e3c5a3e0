/** The student, run by ONNX Runtime: on the graphics processor, or on the cores. */

const RUNTIME = new URL("runtime/", import.meta.url).href;
const MODEL = new URL("student.onnx", import.meta.url).href;
const MOST_THREADS = 8;

/** Modules of the runtime, by engine: each loads a WebAssembly file of its own. */
const MODULES = { webgpu: "ort.webgpu.min.mjs", wasm: "ort.wasm.min.mjs" };

/**
 * Open the student.
 *
 * @param {"auto" | "webgpu" | "wasm"} wanted auto: WebGPU on real graphics hardware, otherwise
 *   WASM
 * @returns {Promise<Engine>}
 */
export async function openEngine(wanted) {
  if (wanted === "wasm") return openWith("wasm");
  const problem = await whyNoWebGpu(wanted === "webgpu");
  if (wanted === "webgpu") {
    if (problem) throw new Error(`WebGPU cannot be used: ${problem}`);
    return openWith("webgpu");
  }
  if (problem) return openWith("wasm");
  try {
    return await openWith("webgpu");
  } catch {
    return openWith("wasm");
  }
}

/** Return why WebGPU cannot be used, or null. One that is imitated on the cores is slower than WASM. */
async function whyNoWebGpu(imitationWillDo) {
  if (!navigator.gpu) return "this browser has none";
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  if (!adapter) return "there is no graphics processor for it";
  const imitated = adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter;
  if (imitated && !imitationWillDo) return "it is imitated on the cores";
  return null;
}

async function openWith(provider) {
  const ort = await import(RUNTIME + MODULES[provider]);
  // Several threads need memory that they share, which a browser gives only to isolated pages.
  const threads = self.crossOriginIsolated
    ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS)
    : 1;
  ort.env.wasm.wasmPaths = RUNTIME;
  ort.env.wasm.numThreads = provider === "wasm" ? threads : 1;
  ort.env.logLevel = "error";
  const response = await fetch(MODEL);
  if (!response.ok) throw new Error(`student.onnx: the server answers ${response.status}`);
  const session = await ort.InferenceSession.create(await response.arrayBuffer(), {
    executionProviders: [provider],
  });
  return new Engine(ort, session, provider, threads);
}

class Engine {
  constructor(ort, session, provider, threads) {
    this.ort = ort;
    this.session = session;
    this.provider = provider;
    this.threads = threads;
  }

  /** What runs, in words. */
  get name() {
    if (this.provider === "webgpu") return "WebGPU";
    return `WASM on ${this.threads} thread${this.threads === 1 ? "" : "s"}`;
  }

  /**
   * Enlarge planes.
   *
   * @param {{data: Float32Array, width: number, height: number}} planes 3 x height x width, 0..1
   * @returns {Promise<{data: Float32Array, width: number, height: number}>}
   */
  async run({ data, width, height }) {
    const lq = new this.ort.Tensor("float32", data, [1, 3, height, width]);
    const results = await this.session.run({ [this.session.inputNames[0]]: lq });
    const sr = results[this.session.outputNames[0]];
    const [, , outHeight, outWidth] = sr.dims;
    const result = { data: await sr.getData(), width: outWidth, height: outHeight };
    lq.dispose();
    return result;
  }
}
