//! Checks the CPU features that the engine requires, and sets how the engine's threads wait.
//!
//! [`check`] finds the instruction sets that llama.cpp was compiled for but that this CPU lacks.
//! Without this check, a missing instruction set would kill the process at the first matrix
//! product. `scripts/setup` chooses the instruction sets before the build. By default, they are
//! those of the build machine.

#![allow(unsafe_code)]

/// Makes llama.cpp's threads sleep while they wait for each other. By default they spin, which
/// slows generation down thirtyfold as soon as a test run needs one of the cores.
///
/// OpenMP reads `OMP_WAIT_POLICY` in its own constructor, so this constructor must run first.
#[cfg(target_os = "linux")]
#[used]
#[unsafe(link_section = ".init_array.00101")]
static SLEEP: extern "C" fn() = {
    extern "C" fn sleep() {
        let name = c"OMP_WAIT_POLICY";
        // SAFETY: constructors run before any other thread exists, and both strings are constants.
        // A policy set by the user is kept.
        unsafe { libc::setenv(name.as_ptr(), c"PASSIVE".as_ptr(), 0) };
    }
    sleep
};

/// Checks that this CPU has the instruction sets that llama.cpp was compiled for.
///
/// # Errors
/// Returns a message that lists the missing instruction sets.
pub(crate) fn check() -> Result<(), String> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the embedded engine needs a CPU with {}, which this one does not have; build the agent on this machine, or use a model server",
        missing.join(", ")
    ))
}

#[cfg(target_arch = "x86_64")]
fn missing() -> Vec<&'static str> {
    use llama_cpp_sys_2 as llama;

    // SAFETY: these functions take no arguments and return build-time constants.
    let compiled = unsafe {
        [
            ("AVX", llama::ggml_cpu_has_avx(), is_x86_feature_detected!("avx")),
            ("AVX2", llama::ggml_cpu_has_avx2(), is_x86_feature_detected!("avx2")),
            ("FMA", llama::ggml_cpu_has_fma(), is_x86_feature_detected!("fma")),
            ("F16C", llama::ggml_cpu_has_f16c(), is_x86_feature_detected!("f16c")),
            ("BMI2", llama::ggml_cpu_has_bmi2(), is_x86_feature_detected!("bmi2")),
            ("AVX-VNNI", llama::ggml_cpu_has_avx_vnni(), is_x86_feature_detected!("avxvnni")),
            ("AVX-512", llama::ggml_cpu_has_avx512(), is_x86_feature_detected!("avx512f")),
            ("AVX-512 VBMI", llama::ggml_cpu_has_avx512_vbmi(), is_x86_feature_detected!("avx512vbmi")),
            ("AVX-512 VNNI", llama::ggml_cpu_has_avx512_vnni(), is_x86_feature_detected!("avx512vnni")),
            ("AVX-512 BF16", llama::ggml_cpu_has_avx512_bf16(), is_x86_feature_detected!("avx512bf16")),
        ]
    };
    compiled.into_iter().filter(|(_, built, here)| *built != 0 && !here).map(|(name, ..)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn missing() -> Vec<&'static str> {
    Vec::new()
}
