//! Receiving frames: reads as much as is available and keeps what is incomplete.

use std::borrow::Cow;
use std::cell::{RefCell, RefMut};
use std::io;
use std::os::fd::OwnedFd;

use serde::de::DeserializeOwned;

use crate::error::{HandshakeError, RecvBytesError, RecvError};
use crate::frame::{Assembler, Frame, Space};
use crate::hello::{self, Hello};
use crate::message;
use crate::stream::{ReadFault, Stream};
use multiproc_message::{DecodeError, Format};
use multiproc_shm::Deadline;

/// The reason why nothing can be read after a message whose descriptors were lost.
const LOST: &str = "descriptors were lost on arrival, because this process has as many open as it \
                    may (RLIMIT_NOFILE)";

pub(crate) struct Reader {
    assembler: RefCell<Assembler>,
    state: RefCell<State>,
    format: Format,
}

enum State {
    Open,
    /// The other side's hello is expected before the first message. This is ours, for comparison.
    Greeting(Box<Hello>),
    /// No further message can be read.
    Corrupted(String),
    /// The other side's hello does not match ours.
    Refused(HandshakeError),
}

impl Default for Reader {
    fn default() -> Self {
        Self::new(Assembler::new(), Format::Native)
    }
}

impl Reader {
    fn new(assembler: Assembler, format: Format) -> Self {
        let state = RefCell::new(State::Open);
        Self { assembler: RefCell::new(assembler), state, format }
    }

    /// Continues with the bytes that another end had read ahead.
    pub(crate) fn resume(bytes: &[u8], descriptors: Vec<OwnedFd>, format: Format) -> Self {
        Self::new(Assembler::resume(bytes, descriptors), format)
    }

    /// Expects the other side's hello before the first message.
    pub(crate) fn expect(mut self, ours: Hello) -> Self {
        self.state = RefCell::new(State::Greeting(Box::new(ours)));
        self
    }

    /// Returns our hello, if the other side's has not been read.
    pub(crate) fn expected(&self) -> Option<Hello> {
        match &*self.state.borrow() {
            State::Greeting(ours) => Some((**ours).clone()),
            _ => None,
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    /// Returns the bytes that were read ahead, to be sent with the end.
    pub(crate) fn pending(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        match &*self.state.borrow() {
            State::Open | State::Greeting(_) => {}
            State::Corrupted(why) => {
                return Err(io::Error::other(format!("it is corrupted: {why}")));
            }
            State::Refused(why) => return Err(why.clone().into()),
        }
        let assembler = self.assembler.try_borrow().map_err(|_| busy())?;
        if assembler.has_lost_descriptors() {
            return Err(io::Error::other(LOST));
        }
        let (bytes, descriptors) = assembler.pending();
        let copies: io::Result<_> = descriptors.iter().map(OwnedFd::try_clone).collect();
        Ok((bytes, copies?))
    }

    /// Returns the next value, or `None` if the deadline passed.
    #[inline]
    pub(crate) fn recv<T: DeserializeOwned>(
        &self,
        stream: &Stream,
        deadline: Deadline,
    ) -> Result<Option<T>, RecvError> {
        let mut used = None;
        let decoded = self.next_with(stream, deadline, |Frame { body, descriptors }| {
            let value = match self.format {
                Format::Native => message::decode(&body, descriptors),
                format => decode_in(format, &body, descriptors),
            };
            let value = value.map_err(RecvError::Decode);
            if let Cow::Owned(body) = body {
                used = Some(body);
            }
            value
        })?;
        if let Some(body) = used {
            self.assembler.borrow_mut().recycle(body);
        }
        decoded.transpose()
    }

    /// Returns the bytes of the next message, or `None` if the deadline passed.
    pub(crate) fn recv_bytes(
        &self,
        stream: &Stream,
        deadline: Deadline,
    ) -> Result<Option<Vec<u8>>, RecvError> {
        self.next_with(stream, deadline, |frame| frame.body.into_owned())
    }

    /// Reads the next message into a buffer, if it fits.
    pub(crate) fn recv_bytes_into(
        &self,
        stream: &Stream,
        buffer: &mut [u8],
    ) -> Result<usize, RecvBytesError> {
        let copied = self.next_with(stream, Deadline::NEVER, |frame| {
            let Some(place) = buffer.get_mut(..frame.body.len()) else {
                return Err(RecvBytesError::TooLong(frame.body.into_owned()));
            };
            place.copy_from_slice(&frame.body);
            Ok(place.len())
        })?;
        // `None` means that the deadline passed, and there is none.
        copied.unwrap_or(Err(RecvBytesError::Disconnected))
    }

    /// Returns `true` if `recv` would return at once or before the deadline, with a message or an
    /// error.
    pub(crate) fn poll(&self, stream: &Stream, deadline: Deadline) -> io::Result<bool> {
        let mut has_read = false;
        while !self.is_ready() {
            if has_read && deadline.is_past() {
                return Ok(false);
            }
            match self.read_more(stream, &mut *self.assembler()?, deadline) {
                Ok(true) => has_read = true,
                Ok(false) => return Ok(false),
                Err(RecvError::Io(error)) => return Err(error),
                Err(_) => return Ok(true),
            }
        }
        Ok(true)
    }

    /// The same without a system call.
    pub(crate) fn is_ready(&self) -> bool {
        // While a message is being decoded, receiving is an error at once.
        let Ok(mut assembler) = self.assembler.try_borrow_mut() else { return true };
        match self.greet(&mut assembler) {
            Ok(true) => {}
            Ok(false) => return assembler.has_lost_descriptors(),
            Err(_) => return true,
        }
        assembler.is_ready() || assembler.has_lost_descriptors()
    }

    /// Returns an error if a message is being decoded: the caller is its `Deserialize`.
    #[inline]
    fn assembler(&self) -> io::Result<RefMut<'_, Assembler>> {
        self.assembler.try_borrow_mut().map_err(|_| busy())
    }

    #[inline]
    fn next_with<V>(
        &self,
        stream: &Stream,
        deadline: Deadline,
        use_it: impl FnOnce(Frame<'_>) -> V,
    ) -> Result<Option<V>, RecvError> {
        if !matches!(*self.state.borrow(), State::Open) && !self.open(stream, deadline)? {
            return Ok(None);
        }
        let mut assembler = self.assembler().map_err(RecvError::Io)?;
        let mut has_read = false;
        loop {
            match assembler.next() {
                Ok(Some(frame)) => return Ok(Some(use_it(frame))),
                Ok(None) => {}
                Err(why) => return Err(self.give_up(&mut assembler, why)),
            }
            if assembler.has_lost_descriptors() {
                return Err(self.give_up(&mut assembler, LOST.to_owned()));
            }
            // Otherwise a fast sender could keep the call here with one endless message.
            if has_read && deadline.is_past() {
                return Ok(None);
            }
            stream.coalesce();
            if !self.read_more(stream, &mut assembler, deadline)? {
                return Ok(None);
            }
            has_read = true;
        }
    }

    /// Reads the other side's hello, if one is expected. Returns `false` if the deadline passed.
    #[cold]
    pub(crate) fn open(&self, stream: &Stream, deadline: Deadline) -> Result<bool, RecvError> {
        let mut assembler = self.assembler().map_err(RecvError::Io)?;
        let mut has_read = false;
        while !self.greet(&mut assembler)? {
            if has_read && deadline.is_past() {
                return Ok(false);
            }
            if !self.read_more(stream, &mut assembler, deadline)? {
                return Ok(false);
            }
            has_read = true;
        }
        Ok(true)
    }

    /// Checks the other side's hello. Returns `false` if it has not arrived.
    fn greet(&self, assembler: &mut Assembler) -> Result<bool, RecvError> {
        let checked = match &*self.state.borrow() {
            State::Open => return Ok(true),
            State::Corrupted(why) => return Err(RecvError::Corrupted(why.clone())),
            State::Refused(why) => return Err(RecvError::Io(why.clone().into())),
            State::Greeting(ours) => match assembler.announced() {
                None => return Ok(false),
                // Too long for a hello: nothing more of it is read.
                Some(length) if length > hello::LONGEST => Err(HandshakeError::NotAHello),
                Some(_) => match assembler.next() {
                    Ok(None) => return Ok(false),
                    Ok(Some(frame)) if frame.descriptors.is_empty() => {
                        Hello::parse(&frame.body).and_then(|theirs| ours.check(&theirs))
                    }
                    Ok(Some(_)) | Err(_) => Err(HandshakeError::NotAHello),
                },
            },
        };
        match checked {
            Ok(()) => {
                self.state.replace(State::Open);
                Ok(true)
            }
            Err(why) => {
                *assembler = Assembler::new();
                self.state.replace(State::Refused(why.clone()));
                Err(RecvError::Io(why.into()))
            }
        }
    }

    /// Reads once, waiting for the first byte. Returns `false` if the deadline passed.
    #[inline]
    fn read_more(
        &self,
        stream: &Stream,
        assembler: &mut Assembler,
        deadline: Deadline,
    ) -> Result<bool, RecvError> {
        if deadline != Deadline::NEVER && !stream.wait_readable(deadline).map_err(RecvError::Io)? {
            return Ok(false);
        }
        loop {
            match read_once(stream, assembler) {
                Ok(0) if assembler.is_inside_frame() => {
                    let why = "it ended inside a message".to_owned();
                    return Err(self.give_up(assembler, why));
                }
                Ok(0) => return Err(RecvError::Disconnected),
                Ok(_) => return Ok(true),
                // A descriptor that the program passed in may be non-blocking.
                Err(ReadFault::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !stream.wait_readable(deadline).map_err(RecvError::Io)? {
                        return Ok(false);
                    }
                }
                Err(ReadFault::Io(error)) => return Err(RecvError::Io(error)),
                Err(ReadFault::DescriptorsLost(_)) => {
                    assembler.lose_descriptors();
                    return Ok(true);
                }
            }
        }
    }

    /// Discards everything, since nothing more can be read.
    #[cold]
    fn give_up(&self, assembler: &mut Assembler, why: String) -> RecvError {
        let why = if assembler.has_lost_descriptors() { LOST.to_owned() } else { why };
        *assembler = Assembler::new();
        self.state.replace(State::Corrupted(why.clone()));
        RecvError::Corrupted(why)
    }
}

/// Decodes a format other than the native one.
#[cold]
fn decode_in<T: DeserializeOwned>(
    format: Format,
    body: &[u8],
    descriptors: Vec<OwnedFd>,
) -> Result<T, DecodeError> {
    format.decode(body, descriptors)
}

#[cold]
fn busy() -> io::Error {
    io::Error::other(
        "the connection is receiving a message, and the `Deserialize` of that message uses the same \
         connection: let it use another one",
    )
}

/// Reads once. A reset counts as the end: the other side closed without reading everything.
#[inline]
fn read_once(stream: &Stream, assembler: &mut Assembler) -> Result<usize, ReadFault> {
    let space = assembler
        .space()
        .map_err(|error| ReadFault::Io(io::Error::new(io::ErrorKind::OutOfMemory, error)))?;
    let is_ahead = matches!(space, Space::Ahead(..));
    let result = match stream.read(space) {
        Err(ReadFault::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => Ok(0),
        other => other,
    };
    if is_ahead && let Ok(count) | Err(ReadFault::DescriptorsLost(count)) = result {
        assembler.filled(count);
    }
    result
}
