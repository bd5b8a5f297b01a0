/* cuDNN without a GPU: every convolution has one algorithm that needs no memory. */
#include <cudnn.h>

int stand_in_count(const char*);

const char* cudnnGetErrorString(cudnnStatus_t status) { return status ? "error" : "success"; }
size_t cudnnGetVersion(void) { return CUDNN_VERSION; }

#define SIZE_OF(name, ...) \
    cudnnStatus_t name(__VA_ARGS__, size_t* bytes) { *bytes = 0; return CUDNN_STATUS_SUCCESS; }
SIZE_OF(cudnnGetConvolutionForwardWorkspaceSize, cudnnHandle_t h, const cudnnTensorDescriptor_t x,
        const cudnnFilterDescriptor_t w, const cudnnConvolutionDescriptor_t c, const cudnnTensorDescriptor_t y,
        cudnnConvolutionFwdAlgo_t a)
SIZE_OF(cudnnGetConvolutionBackwardDataWorkspaceSize, cudnnHandle_t h, const cudnnFilterDescriptor_t w,
        const cudnnTensorDescriptor_t dy, const cudnnConvolutionDescriptor_t c, const cudnnTensorDescriptor_t dx,
        cudnnConvolutionBwdDataAlgo_t a)
SIZE_OF(cudnnGetConvolutionBackwardFilterWorkspaceSize, cudnnHandle_t h, const cudnnTensorDescriptor_t x,
        const cudnnTensorDescriptor_t dy, const cudnnConvolutionDescriptor_t c, const cudnnFilterDescriptor_t dw,
        cudnnConvolutionBwdFilterAlgo_t a)

#define ONE_ALGORITHM(found, count, number) \
    stand_in_count(__func__); \
    *count = 1; \
    found[0].algo = number; \
    found[0].status = CUDNN_STATUS_SUCCESS; \
    found[0].memory = 0; \
    return CUDNN_STATUS_SUCCESS;

cudnnStatus_t cudnnFindConvolutionForwardAlgorithmEx(
    cudnnHandle_t h, const cudnnTensorDescriptor_t xd, const void* x, const cudnnFilterDescriptor_t wd, const void* w,
    const cudnnConvolutionDescriptor_t c, const cudnnTensorDescriptor_t yd, void* y, const int asked, int* count,
    cudnnConvolutionFwdAlgoPerf_t* found, void* space, size_t bytes) {
    ONE_ALGORITHM(found, count, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM)
}
cudnnStatus_t cudnnFindConvolutionBackwardDataAlgorithmEx(
    cudnnHandle_t h, const cudnnFilterDescriptor_t wd, const void* w, const cudnnTensorDescriptor_t dyd, const void* dy,
    const cudnnConvolutionDescriptor_t c, const cudnnTensorDescriptor_t dxd, void* dx, const int asked, int* count,
    cudnnConvolutionBwdDataAlgoPerf_t* found, void* space, size_t bytes) {
    ONE_ALGORITHM(found, count, CUDNN_CONVOLUTION_BWD_DATA_ALGO_1)
}
cudnnStatus_t cudnnFindConvolutionBackwardFilterAlgorithmEx(
    cudnnHandle_t h, const cudnnTensorDescriptor_t xd, const void* x, const cudnnTensorDescriptor_t dyd, const void* dy,
    const cudnnConvolutionDescriptor_t c, const cudnnFilterDescriptor_t dwd, void* dw, const int asked, int* count,
    cudnnConvolutionBwdFilterAlgoPerf_t* found, void* space, size_t bytes) {
    ONE_ALGORITHM(found, count, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1)
}
