//! A program that has neither `init` nor `enable_in_tests!`.

use multiproc_manager::Manager;

#[test]
fn a_manager_says_what_is_missing_and_leaves_nothing() {
    let path = std::env::temp_dir().join(format!("multiproc-no-init-{}", std::process::id()));
    let error = Manager::builder().address(&path).start().unwrap_err();
    assert!(error.to_string().contains("call `multiproc::init()` first"), "{error}");
    assert!(!path.exists());
}
