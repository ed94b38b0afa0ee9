//! A program that has neither `init` nor `enable_in_tests!`: it must not start itself again and
//! again.

use multiproc_process::{Process, SpawnError, active_children};

#[test]
fn spawn_without_init_is_an_error() {
    let error = Process::spawn(|()| (), ()).unwrap_err();
    assert!(matches!(error, SpawnError::NotInitialized));
    assert!(active_children().is_empty());
}
