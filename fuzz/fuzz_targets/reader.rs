//! One reader under LLVM's fuzzer; which, says the variable `PGHERD_FUZZ`. To be run by `scripts/fuzz.sh`.

#![no_main]

use std::sync::LazyLock;

static READ: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("PGHERD_FUZZ").unwrap_or_default();
    let target = pgherd_fuzz::targets().into_iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("PGHERD_FUZZ={name:?} names no reader")).read
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| READ(bytes));
