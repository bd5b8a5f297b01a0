/* The CUDA runtime without a GPU: device memory is the host's, copies copy, kernels are counted and not run. */
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

int stand_in_count(const char*);
int stand_in_add(const char*, long);
#define COUNT() stand_in_count(__func__)

static const size_t MEMORY = (size_t)8 << 30;

cudaError_t cudaGetDeviceCount(int* count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { *device = 0; return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { *version = 13000; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { *version = 13000; return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t error) { return error ? "error" : "cudaSuccess"; }
const char* cudaGetErrorString(cudaError_t error) { return error ? "error" : "no error"; }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp* p, int device) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "stand-in");
    p->major = 9;
    p->totalGlobalMem = MEMORY;
    p->multiProcessorCount = 132;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsPerMultiProcessor = 2048;
    p->sharedMemPerBlock = 48 << 10;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, enum cudaDeviceAttr attribute, int device) {
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9 : attribute == cudaDevAttrMultiProcessorCount ? 132
           : attribute == cudaDevAttrWarpSize ? 32 : attribute == cudaDevAttrComputeCapabilityMinor ? 0 : 1024;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
    *available = *total = MEMORY;
    return cudaSuccess;
}

static cudaError_t allocate(void** pointer, size_t bytes) {
    *pointer = calloc(1, bytes);
    return *pointer ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) { COUNT(); return allocate(pointer, bytes); }
cudaError_t cudaMallocManaged(void** pointer, size_t bytes, unsigned flags) { COUNT(); return allocate(pointer, bytes); }
cudaError_t cudaMallocHost(void** pointer, size_t bytes) { COUNT(); return allocate(pointer, bytes); }
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned flags) { COUNT(); return allocate(pointer, bytes); }
cudaError_t cudaFree(void* pointer) { COUNT(); free(pointer); return cudaSuccess; }
cudaError_t cudaFreeHost(void* pointer) { COUNT(); free(pointer); return cudaSuccess; }

static const char* const KINDS[] = {"copy host to host", "copy to device", "copy to host", "copy on device", "copy"};

static cudaError_t copy(void* to, const void* from, size_t bytes, enum cudaMemcpyKind kind) {
    stand_in_count(KINDS[kind]);
    memmove(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, enum cudaMemcpyKind kind) {
    COUNT();
    return copy(to, from, bytes, kind);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    COUNT();
    return copy(to, from, bytes, kind);
}
cudaError_t cudaMemset(void* pointer, int value, size_t bytes) {
    COUNT();
    memset(pointer, value, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t stream) {
    COUNT();
    memset(pointer, value, bytes);
    return cudaSuccess;
}

/* Thrust and CUB ask for what a kernel needs, and for how many fit, before they launch it. */
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes* attributes, const void* stub) {
    memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 32;
    attributes->ptxVersion = attributes->binaryVersion = 90;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* stub, int threads, size_t shared) {
    *blocks = 1;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* stub, int threads, size_t shared,
                                                                   unsigned flags) {
    *blocks = 1;
    return cudaSuccess;
}

/* Kernels are known by the address of their stub; the compiler registers it with the name. */
#define MAX_KERNELS 65536
static struct { const void* stub; const char* name; } kernels[MAX_KERNELS];
static int registered;

void __cudaRegisterFunction(void** handle, const char* stub, char* device, const char* name, int limit, uint3* t, uint3* b,
                            dim3* block, dim3* grid, int* words) {
    if (registered < MAX_KERNELS) {
        kernels[registered].stub = stub;
        kernels[registered++].name = strdup(name);
    }
}
void** __cudaRegisterFatBinary(void* binary) { static void* handle; return &handle; }
void __cudaRegisterFatBinaryEnd(void** handle) {}
void __cudaUnregisterFatBinary(void** handle) {}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void* stream) { return 0; }
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) { return cudaSuccess; }
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
    *kernel = (cudaKernel_t)stub;
    return cudaSuccess;
}

static cudaError_t launch(const void* stub) {
    stand_in_count("kernel launch");
    for (int i = registered - 1; i >= 0; i--)
        if (kernels[i].stub == stub) {
            stand_in_count(kernels[i].name);
            break;
        }
    return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void* stub, dim3 grid, dim3 block, void** arguments, size_t shared, cudaStream_t stream) {
    return launch(stub);
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                               cudaStream_t stream) {
    return launch((const void*)kernel);
}

/* The stream is always empty, so what is to follow it can be done at once. */
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
    COUNT();
    function(data);
    return cudaSuccess;
}
