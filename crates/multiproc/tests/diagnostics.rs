//! The compiler's errors for what cannot be sent, or not be called, tell what to do instead.
//!
//! To accept new texts, run this test with `TRYBUILD=overwrite` and read the difference.

use std::env;
use std::process::Command;

/// The version of the compiler that printed the texts in `tests/ui`. Others print other ones.
const RUSTC: &str = "rustc 1.95.";

#[test]
fn errors_of_the_compiler_tell_what_to_do() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap();
    if !version.starts_with(RUSTC) {
        eprintln!("skipped: the texts are those of {RUSTC}*, and this is {}", version.trim());
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
