/** A bundle that is open. Any number of threads may use it at once.
 *
 * Handles are numbers in a pointer's clothing: nothing is where they point. A handle that was closed, was never given
 * out, or is of another kind is recognised, and the call returns a status. They are never used twice.
 */
typedef struct mova_runtime mova_runtime;

/** What a call found: texts, tokens, tensors. It belongs to the caller until mova_release(), and outlives mova_close(). */
typedef struct mova_result mova_result;

/** A switch in options; zero leaves the default. */
typedef enum mova_switch { MOVA_DEFAULT = 0, MOVA_ON = 1, MOVA_OFF = 2 } mova_switch;

/** How a bundle is opened: zero it, set struct_size to its size, and change what you mean to. Zero is the default. */
typedef struct mova_options {
  size_t struct_size;               /**< sizeof(mova_options); what a newer mova.h adds, an older library refuses */
  const char *backend;              /**< "ort", "openvino", "ort-cuda,adapter=cuda:bf16", ...; NULL: what fits here */
  const char *precision;            /**< "fp32", "fp16", "bf16", "int8", "int4"; NULL: the bundle's first */
  const char *fallback;             /**< "ort:fp32,...": what may serve instead, in order; NULL: nothing */
  const char *memory_budget;        /**< "6GiB": of engines and cached features together; NULL: no bound */
  const char *device_memory_budget; /**< the same of the GPU's memory */
  const char *feature_cache;        /**< "256MiB", the default: features kept for further calls; "0" keeps none */
  double lease_timeout;             /**< seconds to wait for memory that others use; 0: 120; negative: for ever */
  int32_t threads;                  /**< of each engine; 0: one a physical core */
  int32_t max_context;              /**< tokens of prompt and answer together at most; 0: the model's own bound */
  int32_t prefetch;                 /**< mova_switch: load engines ahead; default on */
  int32_t speculate;                /**< mova_switch: load experts that are likely to be chosen; default off */
  int32_t experts_at_once;          /**< mova_switch: run a request's experts at the same time; default off */
  int32_t keep_compiled;            /**< mova_switch: OpenVINO keeps what it compiled on disk; default off */
} mova_options;

/** The order of a pixel's bytes. Alpha is dropped, not blended. */
typedef enum mova_format { MOVA_RGB8 = 1, MOVA_BGR8 = 2, MOVA_RGBA8 = 3, MOVA_GRAY8 = 4 } mova_format;

/** Pixels where you have them. They are read during the call, must not change meanwhile, and are not kept. */
typedef struct mova_image {
  const void *data; /**< the upper left pixel */
  int32_t width;    /**< pixels, from 1 */
  int32_t height;   /**< rows, from 1; the image has 2^28 pixels at most */
  int64_t stride;   /**< bytes from a row to the next; 0: rows lie close; negative: the next row lies in front */
  int32_t format;   /**< mova_format */
  int32_t reserved; /**< 0 */
} mova_image;

/** How to answer: zero it and set struct_size. A NULL in its place is the same as all zeros. */
typedef struct mova_request {
  size_t struct_size;             /**< sizeof(mova_request) */
  const char *experts;            /**< "sam,dinov2": use these; "none": use none; NULL: the model chooses */
  int32_t max_new_tokens;         /**< 0: 128 */
  int32_t seeded;                 /**< non-zero: `seed` counts; 0: tokens are drawn anew each time */
  int64_t seed;                   /**< from 0; the same one draws the same tokens */
  double temperature;             /**< 0: always the most likely token */
  double top_p;                   /**< 0: 1, from all tokens */
  const char *const *stop;        /**< texts that end the answer, a NULL behind the last; or NULL */
  const volatile int32_t *cancel; /**< when another thread makes it non-zero the answer ends; or NULL */
} mova_request;

/** What a tensor's numbers are. */
typedef enum mova_dtype { MOVA_FLOAT32 = 1, MOVA_INT64 = 2 } mova_dtype;

/** An array of the host in C order; it stays until the result is released. */
typedef struct mova_tensor {
  const void *data;
  int64_t shape[4]; /**< lengths of the first `rank` axes, then zeros */
  int32_t rank;
  int32_t dtype;  /**< mova_dtype */
  uint64_t bytes; /**< the product of the lengths, times the size of a number */
} mova_tensor;

/** Takes a piece of an answer: `length` bytes of whole UTF-8 characters and a zero, which stay during the call.
 *
 * Returns non-zero to hear no more. It runs in the thread that called mova_stream(), may call this library, and must
 * not leave by longjmp() or an exception.
 */
typedef int (*mova_piece)(const char *text, size_t length, void *context);
