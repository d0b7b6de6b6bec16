/** The ABI number of the library: use it with a header whose MOVA_ABI_VERSION is the same. Starts nothing. */
MOVA_API int32_t mova_abi_version(void);

/** The library's version. Stays for ever; starts nothing. */
MOVA_API const char *mova_version(void);

/** A status's name, such as "MOVA_IMAGE"; "MOVA_UNKNOWN" for no status of this library. Starts nothing. */
MOVA_API const char *mova_status_name(mova_status status);

/** One line about the last call of this thread that failed: what was wrong, where, what to do. "" before any did.
 *
 * UTF-8. Stays until the next call of this thread that fails.
 */
MOVA_API const char *mova_last_error(void);

/** Start Python now rather than in the first call that needs it. Calling it again, from any thread, does nothing more.
 *
 * Signal handlers stay yours. Python runs until the process ends. Returns MOVA_OK or MOVA_PYTHON.
 */
MOVA_API mova_status mova_init(void);

/** Open a bundle. Reads its manifest; engines are loaded by the calls that need them.
 *
 * path: the bundle's folder. options: NULL for the defaults. runtime: is NULL where this fails.
 * Returns MOVA_BUNDLE, MOVA_BACKEND, MOVA_MEMORY_BUDGET or MOVA_INVALID_ARGUMENT where they mean what they say.
 */
MOVA_API mova_status mova_open(const char *path, const mova_options *options, mova_runtime **runtime);

/** Close a bundle and give its memory back. Calls that are at work in other threads end with MOVA_CLOSED: an
 * answer before its next token, others where they next need an engine. It does not wait for them: pixels, flags and a
 * callback's context have to stay until they have returned, but no piece comes any more. An answer that was cancelled
 * before is MOVA_CANCELLED all the same. Results stay. NULL is MOVA_INVALID_ARGUMENT, closing twice MOVA_CLOSED.
 */
MOVA_API mova_status mova_close(mova_runtime *runtime);

/** Ask which experts suit a question about an image. The result has text, tokens and experts. */
MOVA_API mova_status mova_route(mova_runtime *runtime, const mova_image *image, const char *question,
                                mova_result **result);

/** Fuse an image for a question. experts as in mova_request.
 *
 * The result has tensors "tokens" [T, H] float32, for a language model, and "gates" [blocks, 7] float32, what each
 * block of the adapter gave each expert.
 */
MOVA_API mova_status mova_encode(mova_runtime *runtime, const mova_image *image, const char *question,
                                 const char *experts, mova_result **result);

/** What one encoder makes of an image: "base", or an expert's name.
 *
 * The result has the tensor "features" [n, C] float32. It is where the engine ran: mova_result_dlpack() lends it
 * there, mova_result_tensor() gives it on the host.
 */
MOVA_API mova_status mova_features(mova_runtime *runtime, const mova_image *image, const char *name,
                                   mova_result **result);

/** Answer a question about an image. request: NULL for the defaults.
 *
 * The result has text, tokens (with the one that ended it), experts, and JSON with all that is known about the request.
 * Returns MOVA_CANCELLED, and a result with what was said so far, where `cancel` ended it.
 */
MOVA_API mova_status mova_answer(mova_runtime *runtime, const mova_image *image, const char *question,
                                 const mova_request *request, mova_result **result);

/** Answer a question piece by piece; the pieces together are the answer's text.
 *
 * result: as of mova_answer(); may be NULL. Returns MOVA_CANCELLED where the callback returned non-zero or `cancel`
 * ended it, with a result of what was said so far.
 */
MOVA_API mova_status mova_stream(mova_runtime *runtime, const mova_image *image, const char *question,
                                 const mova_request *request, mova_piece piece, void *context, mova_result **result);

/** What the runtime has done since it was opened, as JSON, in a result with text. */
MOVA_API mova_status mova_stats_json(mova_runtime *runtime, mova_result **result);

/** A result's text, zero at its end: an answer, what the router said, or JSON of mova_stats_json().
 *
 * length: bytes without the zero; may be NULL. The text stays until the result is released, as everything below does.
 */
MOVA_API mova_status mova_result_text(mova_result *result, const char **text, size_t *length);

/** All that is known about an answer, as JSON: text, tokens, routing, stages, engines, cache. */
MOVA_API mova_status mova_result_json(mova_result *result, const char **text, size_t *length);

/** The experts that were used or chosen: "dinov2,sam", "" for none. length: may be NULL. */
MOVA_API mova_status mova_result_experts(mova_result *result, const char **names, size_t *length);

/** The token ids of an answer, or of what the router said. tokens is NULL where there are none. */
MOVA_API mova_status mova_result_tokens(mova_result *result, const int64_t **tokens, size_t *count);

/** A result's tensor on the host, by name. From a GPU's memory it is copied, once. */
MOVA_API mova_status mova_result_tensor(mova_result *result, const char *name, mova_tensor *tensor);

/** A result's tensor as DLPack's (before version 1.0) where it was computed, on the host or in a GPU's memory.
 *
 * Nothing is copied. It stays until you call its deleter, from any thread and also after mova_release() and
 * mova_close(). struct DLManagedTensor is dlpack.h's, which this header does not need.
 */
MOVA_API mova_status mova_result_dlpack(mova_result *result, const char *name, struct DLManagedTensor **tensor);

/** Give a result back: pointers into it are no longer valid. NULL does nothing; releasing twice is MOVA_CLOSED. */
MOVA_API mova_status mova_release(mova_result *result);
