//! Makes the kernel refuse a system call, as a container with a seccomp profile does.
#![allow(unsafe_code)]

/// Makes the system call with this `number` fail with `error`, in this process and its future
/// children, until they end.
///
/// # Panics
///
/// If the kernel does not accept the filter.
#[allow(clippy::cast_possible_truncation)] // the codes have 16 bits
pub fn refuse_call(number: libc::c_long, error: libc::c_int) {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let number = u32::try_from(number).expect("system calls have small numbers");
    let errno = u32::try_from(error).expect("errno is positive");
    let refuse = libc::SECCOMP_RET_ERRNO | errno;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 1, number),
        step(RETURN, 0, 0, refuse),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the call takes no pointers. seccomp(2) requires it before a filter is set.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: `program` points to the four steps of `filter`, which the kernel copies.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(result, 0);
}
