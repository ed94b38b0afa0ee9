//! A program that has neither `init` nor `enable_in_tests!`.

use multiproc_manager::{Manager, ManagerError};
use multiproc_process::SpawnError;

#[test]
fn a_manager_says_what_is_missing_and_leaves_nothing() {
    let path = std::env::temp_dir().join(format!("multiproc-no-init-{}", std::process::id()));
    let error = Manager::builder().address(&path).start().unwrap_err();
    assert!(matches!(error, ManagerError::Spawn(SpawnError::NotInitialized)), "{error}");
    assert!(!path.exists());
}
