//! Names of objects.

use std::borrow::Cow;

/// The name of an object of a manager: a string, or `None` for an object without a name.
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::Manager;
///
/// let manager = Manager::start()?;
/// let shared = manager.queue::<u8>("jobs", 5)?;
/// assert!(manager.queue("jobs", 5)?.is_same(&shared));
/// let nameless = manager.queue::<u8>(None, 5)?;
/// assert!(!nameless.is_same(&shared));
/// # Ok(())
/// # }
/// ```
pub trait Name: private::Name {}

pub(crate) mod private {
    pub trait Name {
        fn text(&self) -> Option<&str>;
    }
}

macro_rules! names {
    ($($type:ty)*) => {$(
        impl Name for $type {}

        impl private::Name for $type {
            fn text(&self) -> Option<&str> {
                Some(self)
            }
        }
    )*};
}

names!(&str &&str String &String Cow<'_, str>);

impl Name for Option<&str> {}

impl private::Name for Option<&str> {
    fn text(&self) -> Option<&str> {
        *self
    }
}
