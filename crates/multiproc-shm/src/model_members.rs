//! Members for models, where threads stand for processes and one of them may be dead.

use crate::members::{MemberId, Members};

/// A member, and the other member that is dead, if any.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// This member.
    pub me: MemberId,
    /// The dead member.
    pub dead: Option<MemberId>,
}

impl Members for Member {
    fn me(&self) -> MemberId {
        self.me
    }

    fn is_alive(&self, member: MemberId) -> bool {
        Some(member) != self.dead
    }
}

/// Returns the member of a test's thread number `n`.
#[must_use]
pub fn member(n: usize) -> Member {
    Member { me: MemberId::new(n, 1), dead: None }
}

impl Member {
    /// Returns the same member after the death of another.
    #[must_use]
    pub fn after_death_of(self, dead: Self) -> Self {
        Self { dead: Some(dead.me), ..self }
    }
}
