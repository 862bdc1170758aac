//! What two daemons say, on a wire that loses, repeats and reorders.
//!
//! A wire is the set of what was ever said on it: anything in it may arrive now, again, or never. Each word belongs to
//! the link by which it was said, as a link is a session of its own: it reaches those who hold that link, and nobody
//! else.

/// A word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// To the destination: may the guest come?
    Reserve,
    /// To the destination: take it.
    Take,
    /// To the destination: have you taken it?
    Ask,
    /// To the destination: nothing will come.
    Abort,
    /// To the destination: an operator took the guest back.
    TakenBack,
    /// To the destination: I know that it runs there, and give up what is here.
    Readdress,
    /// To the source: room is kept.
    Reserved,
    /// To the source: there is none.
    NoRoom,
    /// To the source: the whole guest is here.
    Loaded,
    /// To the source: taken.
    Taken,
    /// To the source: not taken.
    NotTaken,
    /// To the source: it was started here, and is here for good.
    Running,
    /// To the source: I have had it; is it still mine?
    Whose,
    /// To the destination: yes.
    Yours,
}

/// Something said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Said {
    /// What.
    pub word: Word,
    /// About which migration.
    pub number: u8,
    /// By which link.
    pub link: u8,
}

/// All that was said, in order and each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wire(Vec<Said>);

impl Wire {
    /// Says something.
    pub fn say(&mut self, word: Word, number: u8, link: u8) {
        let said = Said { word, number, link };
        // What is said by no link is heard by nobody.
        if link > 0
            && let Err(place) = self.0.binary_search(&said)
        {
            self.0.insert(place, said);
        }
    }

    /// Takes a word off the wire: for a wire that is fair.
    pub fn forget(&mut self, said: Said) {
        self.0.retain(|other| *other != said);
    }

    /// All of it.
    pub fn all(&self) -> impl Iterator<Item = Said> {
        self.0.iter().copied()
    }
}

impl Word {
    /// Who hears it.
    pub fn is_for_destination(self) -> bool {
        matches!(
            self,
            Word::Reserve
                | Word::Take
                | Word::Ask
                | Word::Abort
                | Word::TakenBack
                | Word::Readdress
                | Word::Yours
        )
    }
}
