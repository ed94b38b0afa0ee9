//! An error that is sent to another process.

use std::error::Error;
use std::ops::Deref;
use std::{fmt, iter};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The maximum number of errors in a chain. It bounds what a hostile sender can make the receiver
/// build, and an error that is its own source.
const MAX_CHAIN: usize = 64;

/// An error of a worker, for the process that receives it: the texts of the error and of its
/// sources.
///
/// Any error converts into it with `?`: an error of std or of another crate, an `anyhow::Error`, an
/// `eyre::Report`, a `String` or a `&str`. It is the error type of functions that run in another
/// process, and can be put into a queue or sent over a connection.
///
/// The types of the errors are lost, because they exist only in the process that created them. To
/// let the parent distinguish errors, return an enum of your own that implements `Serialize` and
/// `Deserialize`.
///
/// # In the parent
///
/// [`Process::join_result`](crate::Process::join_result) returns the value of the function, or one
/// error for a worker that returned an error as for a worker that died.
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::{JoinError, Process, RemoteError};
///
/// fn count_lines(path: String) -> Result<usize, RemoteError> {
///     let text = std::fs::read_to_string(&path)?;
///     if text.is_empty() {
///         return Err("the file is empty".into());
///     }
///     Ok(text.lines().count())
/// }
///
/// let worker = Process::spawn(count_lines, "/no/such/file".to_owned())?;
/// match worker.join_result() {
///     Ok(count) => println!("{count} lines"),
///     Err(JoinError::Failed(error)) => {
///         assert_eq!(error.to_string(), "No such file or directory (os error 2)");
///     }
///     Err(died) => return Err(died.into()),
/// }
/// # Ok(())
/// # }
/// ```
///
/// Like `anyhow::Error`, it does not implement [`Error`] itself, but dereferences to an error, and
/// converts into a `Box<dyn Error>`: `worker.join()??` works in a function that returns
/// `Box<dyn Error>`. It converts into a [`JoinError`](crate::JoinError), which is an error, and
/// with the features `anyhow` and `eyre` into the errors of these crates.
///
/// # Debug
///
/// `Debug` prints the text of the error, and those of its sources below it.
///
/// ```
/// use multiproc::RemoteError;
///
/// let cause = std::io::Error::from_raw_os_error(2);
/// let error = RemoteError::from(cause).context("reading the configuration");
/// assert_eq!(error.to_string(), "reading the configuration");
/// assert_eq!(
///     format!("{error:?}"),
///     "reading the configuration\n\nCaused by:\n    No such file or directory (os error 2)"
/// );
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteError {
    link: Link,
}

/// One error of a chain.
#[derive(Clone, PartialEq, Eq)]
struct Link {
    text: String,
    source: Option<Box<Link>>,
}

impl RemoteError {
    /// Creates an error with the texts of `error` and its sources.
    ///
    /// `?` does the same for most types. This is for those that do not convert into a
    /// `Box<dyn Error + Send + Sync>`, such as a `Box<dyn Error>`.
    ///
    /// ```
    /// use multiproc::RemoteError;
    /// use std::error::Error;
    ///
    /// fn parse(text: &str) -> Result<u32, Box<dyn Error>> {
    ///     Ok(text.parse()?)
    /// }
    ///
    /// fn work(text: String) -> Result<u32, RemoteError> {
    ///     Ok(parse(&text).map_err(|error| RemoteError::new(&*error))?)
    /// }
    ///
    /// assert_eq!(work("x".to_owned()).unwrap_err().to_string(), "invalid digit found in string");
    /// ```
    #[must_use]
    pub fn new(error: &dyn Error) -> Self {
        let mut sources = Vec::new();
        let mut next = error.source();
        while let Some(source) = next
            && sources.len() < MAX_CHAIN - 1
        {
            sources.push(source.to_string());
            next = source.source();
        }
        Self { link: Link { text: error.to_string(), source: Link::chain(sources) } }
    }

    /// Returns an error with the text `context`, whose source is this error.
    #[must_use]
    pub fn context(self, context: impl Into<String>) -> Self {
        Self { link: Link { text: context.into(), source: Some(Box::new(self.link)) } }
    }

    /// Returns the error and its sources, the error itself first.
    ///
    /// ```
    /// use multiproc::RemoteError;
    ///
    /// let error = RemoteError::from("no ink").context("printing failed");
    /// let texts: Vec<String> = error.chain().map(ToString::to_string).collect();
    /// assert_eq!(texts, ["printing failed", "no ink"]);
    /// ```
    pub fn chain(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        self.links().map(|link| link as _)
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        iter::successors(Some(&self.link), |link| link.source.as_deref())
    }
}

impl Link {
    /// Returns the error with these texts, the outermost first. Returns `None` if there is no text.
    fn chain(texts: Vec<String>) -> Option<Box<Self>> {
        texts.into_iter().rev().fold(None, |source, text| Some(Box::new(Self { text, source })))
    }
}

impl Error for Link {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Prints the chain.
impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        let mut above = self;
        let mut is_first = true;
        while let Some(source) = &above.source {
            // Many errors repeat the text of their source at their end.
            if !above.text.ends_with(&source.text) {
                f.write_str(if is_first { "\n\nCaused by:" } else { "" })?;
                write!(f, "\n    {}", source.text)?;
                is_first = false;
            }
            above = source;
        }
        Ok(())
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.link.fmt(f)
    }
}

impl fmt::Debug for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.link, f)
    }
}

impl Deref for RemoteError {
    type Target = dyn Error + Send + Sync + 'static;

    fn deref(&self) -> &Self::Target {
        &self.link
    }
}

/// Any error, and texts. `RemoteError` cannot implement `Error` beside this.
impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for RemoteError {
    fn from(error: E) -> Self {
        Self::new(&*error.into())
    }
}

impl From<RemoteError> for Box<dyn Error> {
    fn from(error: RemoteError) -> Self {
        error.link.into()
    }
}

#[cfg(feature = "anyhow")]
impl From<RemoteError> for anyhow::Error {
    fn from(error: RemoteError) -> Self {
        error.link.into()
    }
}

#[cfg(feature = "eyre")]
impl From<RemoteError> for eyre::Report {
    #[track_caller]
    fn from(error: RemoteError) -> Self {
        error.link.into()
    }
}

/// As a sequence of texts.
impl Serialize for RemoteError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<&str> = self.links().take(MAX_CHAIN).map(|link| &*link.text).collect();
        texts.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RemoteError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        if texts.len() > MAX_CHAIN {
            return Err(D::Error::custom("an error has too many sources"));
        }
        let link = Link::chain(texts).ok_or_else(|| D::Error::custom("an error has no text"))?;
        Ok(Self { link: *link })
    }
}
