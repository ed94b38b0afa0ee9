//! Programs with more privileges than the user who starts them.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::{env, fs, process};

use multiproc_testkit::{example, watchdog};
use rustix::fs::{StatVfsMountFlags, XattrFlags, setxattr, statvfs};

const NOBODY: u32 = 65_534;

/// Makes the program set-user-ID.
fn set_user_id(path: &PathBuf) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o4755)).unwrap();
}

/// Lets every user of the program bind ports below 1024: `setcap cap_net_bind_service+ep`.
fn set_capability(path: &PathBuf) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    // `struct vfs_cap_data` of version 2: with the bit "effective"; permitted, inheritable, twice.
    let words: [u32; 5] = [0x0200_0001, 1 << 10, 0, 0, 0];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    setxattr(path, "security.capability", &bytes, XattrFlags::empty()).unwrap();
}

/// Returns a copy of the test programs with privileges, or `None` if that is not possible here.
fn privileged_copy(name: &str, give: fn(&PathBuf)) -> Option<PathBuf> {
    let folder = env::temp_dir();
    let has_rights = statvfs(&folder).unwrap().f_flag.contains(StatVfsMountFlags::NOSUID);
    if !rustix::process::getuid().is_root() || has_rights {
        eprintln!("skipped: this process cannot make such a program");
        return None;
    }
    let path = folder.join(format!("multiproc-{name}-{}", process::id()));
    fs::copy(example("programs"), &path).unwrap();
    give(&path);
    Some(path)
}

fn lines(output: &Output) -> Vec<&str> {
    str::from_utf8(&output.stdout).unwrap().lines().collect()
}

/// Held by each test: a file that is open for writing cannot be executed, and a process that
/// another test starts has a copy of its descriptor for a moment.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn privileged_program_cannot_spawn() {
    let _dog = watchdog();
    let _alone = ALONE.lock();
    for give in [set_user_id, set_capability] {
        let Some(path) = privileged_copy("privileged", give) else { return };
        let output = Command::new(&path).arg("has_privileges").uid(NOBODY).output();
        // For a caller with the same privileges, it is an ordinary program.
        let as_root = Command::new(&path).arg("has_privileges").output();
        fs::remove_file(&path).unwrap();
        assert_eq!(lines(&output.unwrap()), ["main", "privileged"]);
        assert_eq!(lines(&as_root.unwrap()), ["main", "main", "2"], "in parent and child");
    }
}

/// The parent has no more privileges than its own caller. Its child has more than the parent.
#[test]
fn child_that_gains_privileges_exits_before_main() {
    let _dog = watchdog();
    let _alone = ALONE.lock();
    for give in [set_user_id, set_capability] {
        let Some(path) = privileged_copy("gains", give) else { return };
        let output = Command::new(&path).arg("drops_privileges").output();
        fs::remove_file(&path).unwrap();
        let output = output.unwrap();
        assert_eq!(lines(&output), ["main", "exited 102"], "{output:?}");
        let text = str::from_utf8(&output.stderr).unwrap();
        assert!(text.starts_with("multiproc: a child process cannot run its function"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
