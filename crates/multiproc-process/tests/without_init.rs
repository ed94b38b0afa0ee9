//! A program with neither `init` nor `enable_in_tests!` must not start itself recursively.

use multiproc_process::{Process, SpawnError, active_children};

#[test]
fn spawn_without_init_is_an_error() {
    let error = Process::spawn(|()| (), ()).unwrap_err();
    assert!(matches!(error, SpawnError::NotInitialized));
    assert!(active_children().is_empty());
}
