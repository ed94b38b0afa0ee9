//! How a handle is sent to another process.

use std::io;
use std::sync::Arc;

use multiproc_message::Descriptor;
use multiproc_shm::region::Region;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Inner;
use crate::engine::control::Control;
use crate::fd_lane::{End, Role};
use crate::memory::Store;

/// A handle as it is encoded.
#[derive(Serialize, Deserialize)]
struct Wire {
    region: Region<Control>,
    producer: Option<Descriptor>,
    consumer: Option<Descriptor>,
    /// With `consumer`, if it is a queue of tasks.
    claim: Option<Descriptor>,
    name: Option<String>,
}

impl<T> Inner<T> {
    pub(crate) fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let copy = |end: Option<Arc<End>>| {
            let copy = end.map(|end| end.try_clone().map(Descriptor));
            copy.transpose().map_err(serde::ser::Error::custom)
        };
        let wire = Wire {
            region: self.store.region.clone(),
            producer: copy(self.producer_end())?,
            consumer: copy(self.consumer.clone())?,
            claim: self.copy_claim().map_err(serde::ser::Error::custom)?,
            name: self.name.as_deref().map(str::to_owned),
        };
        wire.serialize(serializer)
    }

    fn copy_claim(&self) -> io::Result<Option<Descriptor>> {
        let claim = self.consumer.as_ref().map(|end| end.try_clone_claim()).transpose()?;
        Ok(claim.flatten().map(Descriptor))
    }

    /// Returns an error unless `is_right`, called with whether the handle can put, can get, and is
    /// of a joinable queue.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
        expected: &str,
        is_right: fn(bool, bool, bool) -> bool,
    ) -> Result<Self, D::Error> {
        let Wire { region, producer, consumer, claim, name } = Wire::deserialize(deserializer)?;
        let inner = || {
            let store = Store::over(region)?;
            if !is_right(producer.is_some(), consumer.is_some(), store.tasks.is_some()) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("expected a {expected}, got another kind of handle of a queue"),
                ));
            }
            let is_claimed = claim.is_some();
            if is_claimed != (consumer.is_some() && store.tasks.is_some()) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("expected a {expected}, got one whose descriptors do not match"),
                ));
            }
            let adopt = |socket: Option<Descriptor>, role| {
                let end = socket.map(|Descriptor(fd)| End::adopt(fd, role, store.region.clone()));
                end.transpose()
            };
            let producer = adopt(producer, Role::Producer)?.map(Arc::new);
            let consumer = match (adopt(consumer, Role::Consumer)?, claim) {
                (Some(end), Some(Descriptor(claim))) => Some(end.with_claim(claim)?),
                (end, _) => end,
            };
            let consumer = consumer.map(Arc::new);
            Ok(Self::over(store, producer, consumer, name.map(Arc::from)))
        };
        inner().map_err(serde::de::Error::custom)
    }
}
