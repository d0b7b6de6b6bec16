// libcuda.so.1 that says what it is asked: enough of CUDA's driver for cuda.core to load and launch a kernel.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned grid[3], block[3], shared; void *stream, *attributes; unsigned count; } Config;

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "stub", length); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : 9; return 0; }
int cuGetErrorName(int error, const char **name) { *name = "CUDA_ERROR_NO_BINARY_FOR_GPU"; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "no kernel image"; return 0; }
int cuCtxGetCurrent(void **context) { *context = (void *)0x33; return 0; }
int cuLibraryUnload(void *library) { return 0; }

int cuLibraryLoadData(void **library, const void *code, void *jit, void *values, unsigned count, void *options,
                      void *option_values, unsigned option_count) {
  *library = (void *)0x1111;
  return getenv("STUB_REFUSES") ? 209 : 0;
}

int cuLibraryGetKernel(void **kernel, void *library, const char *name) {
  printf("kernel %s\n", name);
  *kernel = (void *)0x2222;
  return 0;
}

int cuKernelSetAttribute(int attribute, int value, void *kernel, int device) {
  printf("attribute %d %d %p %d\n", attribute, value, kernel, device);
  return 0;
}

// STUB_TYPES: a letter an argument, p(ointer), i(nt32), l(ong), f(loat).
int cuLaunchKernelEx(const Config *c, void *kernel, void **arguments, void **extra) {
  printf("launch %p grid %u %u %u block %u %u %u shared %u stream %p:", kernel, c->grid[0], c->grid[1], c->grid[2],
         c->block[0], c->block[1], c->block[2], c->shared, c->stream);
  for (const char *type = getenv("STUB_TYPES"); *type; type++, arguments++) {
    if (*type == 'p') printf(" %#llx", *(unsigned long long *)*arguments);
    if (*type == 'l') printf(" %lld", *(long long *)*arguments);
    if (*type == 'i') printf(" %d", *(int *)*arguments);
    if (*type == 'f') printf(" %g", *(float *)*arguments);
  }
  printf("\n");
  return 0;
}

int cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
#define HAS(name) if (!strcmp(symbol, #name)) { *function = (void *)name; if (status) *status = 0; return 0; }
  HAS(cuInit) HAS(cuDriverGetVersion) HAS(cuDeviceGet) HAS(cuDeviceGetCount) HAS(cuDeviceGetName)
  HAS(cuDeviceGetAttribute) HAS(cuGetErrorName) HAS(cuGetErrorString) HAS(cuCtxGetCurrent) HAS(cuLibraryUnload)
  HAS(cuLibraryLoadData) HAS(cuLibraryGetKernel) HAS(cuKernelSetAttribute) HAS(cuLaunchKernelEx)
  if (!strcmp(symbol, "cuGetProcAddress")) { *function = (void *)cuGetProcAddress_v2; return 0; }
  *function = 0;
  if (status) *status = 1;
  return 500;
}
