/* What the C side and the Python side of the library say to each other. Programs do not see it.

   Handles are numbers here. Whatever Python returns is a status and one, so that a call that never reached Python,
   which cffi makes zero, is told from one that went well. */
int mova_inner_ready(void);
int mova_inner_open(const char *path, const mova_options *options, uint64_t *runtime);
int mova_inner_close(uint64_t runtime);
int mova_inner_route(uint64_t runtime, const mova_image *image, const char *question, uint64_t *result);
int mova_inner_encode(uint64_t runtime, const mova_image *image, const char *question, const char *experts,
                      uint64_t *result);
int mova_inner_features(uint64_t runtime, const mova_image *image, const char *name, uint64_t *result);
int mova_inner_answer(uint64_t runtime, const mova_image *image, const char *question, const mova_request *request,
                      mova_piece piece, void *context, uint64_t *result);
int mova_inner_stats(uint64_t runtime, uint64_t *result);
int mova_inner_text(uint64_t result, int kind, const char **text, size_t *length);
int mova_inner_tokens(uint64_t result, const int64_t **tokens, size_t *count);
int mova_inner_tensor(uint64_t result, const char *name, mova_tensor *tensor);
int mova_inner_dlpack(uint64_t result, const char *name, void **tensor);
int mova_inner_release(uint64_t result);
