//! Sending frames: encodes into a buffer that is kept and writes it at once.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::SendFault;
use crate::frame::{DESCRIPTORS_A_PACKET, HEADER, Header};
use crate::message::{self, Handles};
use crate::spare;
use crate::stream::Stream;
use multiproc_message::{EncodeError, Format, VariantNumbers, encode_numbered, variant_numbers};
use multiproc_shm::Deadline;

pub(crate) struct Writer {
    buffer: RefCell<Vec<u8>>,
    /// The length of the last frame if it was longer than `buffer` may be kept, otherwise 0.
    large: Cell<usize>,
    unsent: RefCell<Unsent>,
    format: Format,
    /// The numbers of the variants in values of the type that is sent, once they are needed.
    numbers: RefCell<Option<Arc<VariantNumbers>>>,
}

impl Default for Writer {
    fn default() -> Self {
        let (buffer, large, unsent, numbers) = Default::default();
        Self { buffer, large, unsent, format: Format::Native, numbers }
    }
}

/// The rest of an earlier frame.
#[derive(Default)]
enum Unsent {
    #[default]
    Nothing,
    /// The deadline passed within it. It is finished before anything else is written.
    Rest(Rest),
    /// It failed and its value was returned to the caller, so it must not be finished.
    Torn,
}

/// Bytes that are still to be written, with their descriptors.
struct Rest {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// The number of `bytes` that have been written since.
    written: usize,
}

impl Rest {
    /// Returns the rest after the first `written` bytes of a frame. A packet of descriptors was
    /// sent with each of these bytes, as long as there were any.
    fn of(frame: [&[u8]; 2], mut descriptors: Vec<OwnedFd>, written: usize) -> Self {
        descriptors.drain(..sent_with(written, &descriptors));
        let bytes = [frame[0], frame[1]].concat().split_off(written);
        Self { bytes, descriptors, written: 0 }
    }
}

/// Returns how many of a frame's descriptors were sent with its first `written` bytes.
fn sent_with(written: usize, descriptors: &[OwnedFd]) -> usize {
    written.saturating_mul(DESCRIPTORS_A_PACKET).min(descriptors.len())
}

impl Writer {
    /// Continues with the bytes that another end had not written.
    pub(crate) fn resume(bytes: Vec<u8>, descriptors: Vec<OwnedFd>, format: Format) -> Self {
        let writer = Self { format, ..Self::default() };
        if !bytes.is_empty() {
            writer.unsent.replace(Unsent::Rest(Rest { bytes, descriptors, written: 0 }));
        }
        writer
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    /// Sets the type of the values from here on, in a format that has to know it.
    pub(crate) fn set_type<T: Deserialize<'static>>(&self) {
        if self.format == Format::Postcard {
            self.numbers.replace(Some(variant_numbers::<T>()));
        }
    }

    /// Forgets the type of the values so far.
    pub(crate) fn forget_type(&mut self) {
        self.numbers.take();
    }

    /// Returns the bytes that are still to be written, to be sent with the end.
    pub(crate) fn pending(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        match &*self.unsent.borrow() {
            Unsent::Nothing => Ok((Vec::new(), Vec::new())),
            Unsent::Rest(Rest { bytes, descriptors, written }) => {
                let unsent = &descriptors[sent_with(*written, descriptors)..];
                let copies: io::Result<_> = unsent.iter().map(OwnedFd::try_clone).collect();
                Ok((bytes[*written..].to_vec(), copies?))
            }
            Unsent::Torn => Err(torn()),
        }
    }

    #[inline]
    pub(crate) fn send<T: Serialize>(
        &self,
        stream: &Stream,
        value: &T,
        deadline: Deadline,
    ) -> Result<(), SendFault> {
        // Taken out while the value's own code runs, which may send on this connection.
        let mut buffer = match self.large.get() {
            0 => self.buffer.take(),
            length => spare::take(length),
        };
        buffer.clear();
        buffer.extend_from_slice(&[0; HEADER]);
        let encoded = match self.format {
            Format::Native => message::encode_unsent(value, &mut buffer),
            format => self.encode_in(format, value, &mut buffer),
        };
        let result = encoded.map_err(SendFault::Encode).and_then(|handles| match handles {
            None => self.write(stream, fill_header(&mut buffer, 0), Vec::new(), deadline),
            Some(handles) => self.write_handles::<T>(stream, &mut buffer, handles, deadline),
        });
        let is_large = buffer.len() > spare::SMALL;
        self.large.set(if is_large { buffer.len() } else { 0 });
        if buffer.capacity() <= spare::SMALL {
            self.buffer.replace(buffer);
        } else {
            spare::keep(buffer);
        }
        result
    }

    /// Encodes in a format other than the native one.
    #[cold]
    fn encode_in<T: Serialize>(
        &self,
        format: Format,
        value: &T,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Handles>, EncodeError> {
        // Not borrowed while the value's own code runs.
        let numbers = self.numbers.borrow().clone();
        match numbers {
            Some(numbers) => encode_numbered(value, buffer, &numbers),
            None => format.encode_unsent(value, buffer),
        }
    }

    /// Writes a message with handles, which are told when it was sent.
    #[cold]
    fn write_handles<T>(
        &self,
        stream: &Stream,
        frame: &mut [u8],
        mut handles: Handles,
        deadline: Deadline,
    ) -> Result<(), SendFault> {
        let descriptors = handles.take_descriptors();
        if !descriptors.is_empty() && !stream.carries_descriptors() {
            stream.check()?;
            return Err(SendFault::Encode(EncodeError::new::<T>(
                "it holds descriptors, and a simplex connection cannot carry them; use `duplex`",
            )));
        }
        let result =
            self.write(stream, fill_header(frame, descriptors.len()), descriptors, deadline);
        if matches!(result, Ok(()) | Err(SendFault::Unfinished)) {
            handles.sent();
        }
        result
    }

    pub(crate) fn send_bytes(
        &self,
        stream: &Stream,
        bytes: &[u8],
        deadline: Deadline,
    ) -> Result<(), SendFault> {
        let header = Header { length: bytes.len(), descriptors: 0 }.to_bytes();
        self.write(stream, [&header, bytes], Vec::new(), deadline)
    }

    /// Writes a frame after the rest of an earlier one.
    #[inline]
    fn write(
        &self,
        stream: &Stream,
        frame: [&[u8]; 2],
        descriptors: Vec<OwnedFd>,
        deadline: Deadline,
    ) -> Result<(), SendFault> {
        self.flush(stream, deadline)?;
        let mut written = 0;
        let result = stream.write_frame(frame, &descriptors, &mut written, deadline);
        match result {
            Ok(true) => Ok(()),
            result => Err(self.cut_off(result, frame, descriptors, written)),
        }
    }

    #[cold]
    fn cut_off(
        &self,
        result: io::Result<bool>,
        frame: [&[u8]; 2],
        descriptors: Vec<OwnedFd>,
        written: usize,
    ) -> SendFault {
        match result.map_err(SendFault::from) {
            Ok(_) if written == 0 => SendFault::TimedOut,
            Ok(_) => {
                self.unsent.replace(Unsent::Rest(Rest::of(frame, descriptors, written)));
                SendFault::Unfinished
            }
            Err(fault) => {
                // If the other side is gone, the next send returns that as well.
                if written > 0 && !matches!(fault, SendFault::Disconnected) {
                    self.unsent.replace(Unsent::Torn);
                }
                fault
            }
        }
    }

    /// Writes the rest of an earlier frame. If that fails, it can be tried again.
    #[inline]
    pub(crate) fn flush(&self, stream: &Stream, deadline: Deadline) -> Result<(), SendFault> {
        if matches!(*self.unsent.borrow(), Unsent::Nothing) {
            return Ok(());
        }
        self.write_rest(stream, deadline)
    }

    #[cold]
    fn write_rest(&self, stream: &Stream, deadline: Deadline) -> Result<(), SendFault> {
        let mut unsent = self.unsent.borrow_mut();
        match &mut *unsent {
            Unsent::Nothing => {}
            Unsent::Rest(Rest { bytes, descriptors, written }) => {
                if !stream.write_frame([bytes, &[]], descriptors, written, deadline)? {
                    return Err(SendFault::TimedOut);
                }
                *unsent = Unsent::Nothing;
            }
            Unsent::Torn => return Err(SendFault::Io(torn())),
        }
        Ok(())
    }
}

fn torn() -> io::Error {
    io::Error::other("an earlier message was sent only in part; drop this connection")
}

/// Fills in the header before the encoded body of a frame.
#[inline]
fn fill_header(frame: &mut [u8], descriptors: usize) -> [&[u8]; 2] {
    let header = Header { length: frame.len() - HEADER, descriptors };
    frame[..HEADER].copy_from_slice(&header.to_bytes());
    [frame, &[]]
}
