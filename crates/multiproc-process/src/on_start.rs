//! What an initialiser of a process may return.

use crate::remote_error::RemoteError;

/// The return type of an initialiser: `()`, or a `Result` with any error that converts into
/// [`RemoteError`]. See [`Builder::on_start`](crate::Builder::on_start).
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::Process;
///
/// fn enter_workspace() -> std::io::Result<()> {
///     std::env::set_current_dir("/no/such/folder")
/// }
///
/// let worker = Process::builder().on_start(enter_workspace).spawn(|| (), ())?;
/// assert_eq!(worker.join().unwrap_err().to_string(), "No such file or directory (os error 2)");
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "an initialiser of a process cannot return `{Self}`",
    note = "it returns `()`, or a `Result<(), E>` whose error converts into `RemoteError`"
)]
pub trait StartResult: sealed::Sealed {
    #[doc(hidden)]
    fn into_result(self) -> Result<(), RemoteError>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl<E> Sealed for Result<(), E> {}
}

impl StartResult for () {
    fn into_result(self) -> Result<(), RemoteError> {
        Ok(())
    }
}

impl<E: Into<RemoteError>> StartResult for Result<(), E> {
    fn into_result(self) -> Result<(), RemoteError> {
        self.map_err(Into::into)
    }
}
