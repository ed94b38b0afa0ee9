//! The functions that a process can run, and their arguments.

/// A function that a process can call with arguments of type `A`, and that returns an `R`:
/// see [`Process::spawn`](crate::Process::spawn).
///
/// It is implemented for functions and closures of
///
/// - one argument, which is an `A`;
/// - no argument, if `A` is `()`;
/// - up to eight arguments, if `A` is a tuple of them.
///
/// `M` distinguishes these cases. The compiler infers it from the function.
///
/// Code that is generic over a function of one argument need not name this trait:
///
/// ```
/// use multiproc::{Process, SpawnError};
///
/// fn start<F: FnOnce(u32) -> u32 + 'static>(f: F) -> Result<Process<u32>, SpawnError> {
///     Process::spawn(f, 1)
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a process cannot call `{Self}` with arguments of type `{A}`",
    label = "cannot be called with these arguments",
    note = "pass `()` to a function without arguments, the value to a function of one argument, and \
            a tuple of values to a function of several arguments: `Process::spawn(f, (a, b))` calls \
            `f(a, b)`"
)]
pub trait Function<A, R, M>: 'static {
    /// Calls the function.
    #[doc(hidden)]
    fn call(self, args: A) -> R;
}

/// The arguments of a [`Function`]. Every type implements it for the functions that can be called
/// with it.
///
/// It lets the compiler infer the parameter of a closure from the argument: for most argument types
/// only one kind of function is possible, and it is found before the closure is examined.
#[diagnostic::on_unimplemented(
    message = "a process cannot call `{F}` with arguments of type `{Self}`",
    label = "the function does not take these arguments"
)]
pub trait Arguments<F, R, M> {}

impl<F, A, R> Function<A, R, fn(A) -> R> for F
where
    F: FnOnce(A) -> R + 'static,
{
    fn call(self, args: A) -> R {
        self(args)
    }
}

#[diagnostic::do_not_recommend]
impl<F, A, R> Arguments<F, R, fn(A) -> R> for A where F: FnOnce(A) -> R + 'static {}

macro_rules! several_arguments {
    ($(($($argument:ident)*))*) => {$(
        impl<F, R, $($argument),*> Function<($($argument,)*), R, fn($($argument),*) -> R> for F
        where
            F: FnOnce($($argument),*) -> R + 'static,
        {
            #[allow(non_snake_case, reason = "each value has the name of its type")]
            fn call(self, ($($argument,)*): ($($argument,)*)) -> R {
                self($($argument),*)
            }
        }

        #[diagnostic::do_not_recommend]
        impl<F, R, $($argument),*> Arguments<F, R, fn($($argument),*) -> R> for ($($argument,)*)
        where
            F: FnOnce($($argument),*) -> R + 'static,
        {
        }
    )*};
}

several_arguments! {
    ()
    (A)
    (A B)
    (A B C)
    (A B C D)
    (A B C D E)
    (A B C D E G)
    (A B C D E G H)
    (A B C D E G H I)
}
