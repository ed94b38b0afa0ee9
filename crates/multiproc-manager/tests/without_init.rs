//! A program with neither `init` nor `enable_in_tests!`.

use multiproc_manager::{Manager, ManagerError};
use multiproc_process::SpawnError;

#[test]
fn manager_without_init_is_an_error_and_leaves_nothing() {
    let path = std::env::temp_dir().join(format!("multiproc-no-init-{}", std::process::id()));
    let error = Manager::builder().address(&path).start().unwrap_err();
    assert!(matches!(error, ManagerError::Spawn(SpawnError::NotInitialized)), "{error}");
    assert!(!path.exists());
}
