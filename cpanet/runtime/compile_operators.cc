// Jittor compiles operators in several threads. Before the compiler is called, such a thread may put an operator of a
// library (oneDNN, cuDNN, cuBLAS) in the place of loops, and enters it into lists of the variables that the graph shares,
// without a lock: now and then a process ends with a segmentation fault. Here, through the hook that Jittor offers, one
// thread at a time makes its source; the compilers run side by side as before.

#include <mutex>

#include "fused_op.h"
#include "op_compiler.h"
#include "ops/op_register.h"
#include "opt/tuner_manager.h"

namespace jittor {

extern jit_op_entry_t (*do_compile_hook)(Op*);

namespace {

jit_op_entry_t compile(Op* op) {
    static std::recursive_mutex graph;  // recursive: an operator that is tried out may need another one
    std::unique_lock<std::recursive_mutex> lock(graph);
    OpCompiler compiler(op);
    for (auto type : op_types) type->post_pass(&compiler);
    std::string source = compiler.src;
    if (compiler.op) {
        TunerManager tuners(&compiler);
        source = tuners.tune();
    }
    op->compile_optimize(source);
    const std::string key = op->get_jit_key(get_jk());
    lock.unlock();
    return compiler.compile(key, source);
}

}  // namespace
}  // namespace jittor

extern "C" void cpanet_compile_operators() { jittor::do_compile_hook = jittor::compile; }
