//! An open file as a field of a message.

use std::fs::File;
use std::io::{PipeReader, PipeWriter};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{ChildStderr, ChildStdin, ChildStdout, Stdio};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::handles;

/// An open file, socket or any other descriptor, as a field of a message.
///
/// The receiver gets a descriptor of its own for the same open file (`SCM_RIGHTS`, see
/// [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html)). File offset and status flags are
/// shared, as after [dup(2)](https://man7.org/linux/man-pages/man2/dup.2.html). It is
/// close-on-exec.
///
/// Sending duplicates the descriptor, so the sender's own stays open until it is dropped. A
/// descriptor in a message that is never received is closed with the connection, also if the sender
/// was killed.
///
/// ```
/// use multiproc_pipe::{Descriptor, duplex};
/// use std::{fs::File, io::Read};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (left, right) = duplex::<Descriptor, ()>()?;
/// left.send(Descriptor::from(File::open("/dev/zero")?))?;
/// let mut bytes = [1; 4];
/// File::from(right.recv()?).read_exact(&mut bytes)?;
/// assert_eq!(bytes, [0; 4]);
/// # Ok(())
/// # }
/// ```
///
/// It is created from each type of std that owns a descriptor, and converts back to it. The
/// conversion back does not check the kind of the descriptor.
///
/// ```
/// use multiproc_pipe::{Descriptor, duplex};
/// use std::net::{TcpListener, TcpStream};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpListener::bind("localhost:0")?;
/// let address = listener.local_addr()?;
/// let (left, right) = duplex::<Descriptor, ()>()?;
/// left.send(listener.into())?;
///
/// // Another process accepts the connections.
/// let listener = TcpListener::from(right.recv()?);
/// let client = TcpStream::connect(address)?;
/// assert_eq!(listener.accept()?.1, client.local_addr()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[doc(alias = "SCM_RIGHTS")]
#[doc(alias = "sendmsg")]
#[doc(alias = "DupFd")]
pub struct Descriptor(pub OwnedFd);

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let copy = self.0.try_clone().map_err(|error| {
            let reason = format!("a descriptor cannot be duplicated: {error}");
            serde::ser::Error::custom(reason)
        })?;
        handles::attach(copy, serializer)
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        handles::claim(deserializer).map(Self)
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<Descriptor> for OwnedFd {
    fn from(descriptor: Descriptor) -> Self {
        descriptor.0
    }
}

/// For standard input, output or error of a `Command`.
impl From<Descriptor> for Stdio {
    fn from(descriptor: Descriptor) -> Self {
        descriptor.0.into()
    }
}

/// Both conversions, for the types of std that own a descriptor. That to the type takes any
/// descriptor, as that of std does: its first use reports what is wrong.
macro_rules! convert {
    ($($type:ty),* $(,)?) => {
        $(
            impl From<$type> for Descriptor {
                fn from(owner: $type) -> Self {
                    Self(owner.into())
                }
            }

            impl From<Descriptor> for $type {
                fn from(descriptor: Descriptor) -> Self {
                    descriptor.0.into()
                }
            }
        )*
    };
}

convert! {
    File, PipeReader, PipeWriter, TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener,
    UnixStream, ChildStdin, ChildStdout, ChildStderr,
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write, pipe};
    use std::os::fd::AsRawFd;
    use std::process::Command;

    use super::*;

    #[test]
    fn converted_descriptors_keep_their_number() {
        fn through<T: AsRawFd + Into<Descriptor> + From<Descriptor>>(owner: T) -> T {
            let number = owner.as_raw_fd();
            let descriptor: Descriptor = owner.into();
            assert_eq!(descriptor.as_fd().as_raw_fd(), number);
            let owner = T::from(descriptor);
            assert_eq!(owner.as_raw_fd(), number);
            owner
        }
        through(OwnedFd::from(File::open("/dev/null").unwrap()));
        through(File::open("/dev/null").unwrap());
        let (mut reader, mut writer) = pipe().map(|(r, w)| (through(r), through(w))).unwrap();
        writer.write_all(b"x").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        let listener = through(TcpListener::bind("localhost:0").unwrap());
        through(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        through(UdpSocket::bind("localhost:0").unwrap());
        through(UnixDatagram::unbound().unwrap());
        through(UnixStream::pair().unwrap().0);
        through(UnixListener::from(OwnedFd::from(UnixStream::pair().unwrap().0)));
    }

    #[test]
    fn descriptor_is_the_output_of_a_command() {
        let (mut reader, writer) = pipe().unwrap();
        let output = Descriptor::from(writer);
        let mut child = Command::new("echo").arg("text").stdout(output).spawn().unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text\n");
        assert!(child.wait().unwrap().success());
    }
}
