// libcublas.so.13 that says what it is asked: the calls that nvmath makes for the adapter's products.
#include <stddef.h>
#include <stdio.h>

typedef const float *Factor;
typedef const void *In;

int cublasCreate_v2(void **handle) { *handle = (void *)0x99; return 0; }
int cublasDestroy_v2(void *handle) { printf("destroy %p\n", handle); return 0; }
int cublasSetStream_v2(void *handle, void *stream) { printf("stream %p\n", stream); return 0; }
int cublasSetWorkspace_v2(void *handle, void *at, size_t size) { printf("workspace %p %zu\n", at, size); return 0; }
int cublasSetMathMode(void *handle, int mode) { printf("math %d\n", mode); return 0; }

static int say(const char *what, int ta, int tb, int m, int n, int k, Factor alpha, In a, int at, int lda, In b, int bt,
               int ldb, Factor beta, void *c, int ct, int ldc, int compute, int algorithm) {
  printf("%s op %d %d m %d n %d k %d %g*%p(%d ld %d)*%p(%d ld %d)+%g*%p(%d ld %d) compute %d %d\n", what, ta, tb, m, n,
         k, *alpha, a, at, lda, b, bt, ldb, *beta, c, ct, ldc, compute, algorithm);
  return 0;
}

int cublasGemmEx(void *handle, int ta, int tb, int m, int n, int k, Factor alpha, In a, int at, int lda, In b, int bt,
                 int ldb, Factor beta, void *c, int ct, int ldc, int compute, int algorithm) {
  return say("gemm", ta, tb, m, n, k, alpha, a, at, lda, b, bt, ldb, beta, c, ct, ldc, compute, algorithm);
}

int cublasGemmBatchedEx(void *handle, int ta, int tb, int m, int n, int k, Factor alpha, In a, int at, int lda, In b,
                        int bt, int ldb, Factor beta, void *c, int ct, int ldc, int batch, int compute, int algorithm) {
  printf("batch %d ", batch);
  return say("gemm", ta, tb, m, n, k, alpha, a, at, lda, b, bt, ldb, beta, c, ct, ldc, compute, algorithm);
}
