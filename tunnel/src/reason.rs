//! What the kernel's refusals mean here, in words, and which of them are no refusals.

use std::io;

/// Why the kernel did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// The error's number.
    pub errno: i32,
    /// What the kernel itself said, or nothing.
    pub said: String,
    /// What it was about: it decides what the number means.
    pub about: About,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A new vxlan device.
    NewDevice,
    /// Anything else.
    Other,
}

impl Refusal {
    /// True when a thing to be removed was not there: then there is nothing to do.
    pub fn was_absent(&self) -> bool {
        [libc::ENOENT, libc::ESRCH, libc::ENODEV, libc::EADDRNOTAVAIL].contains(&self.errno)
    }

    /// True when a thing to be added was there.
    pub fn was_present(&self) -> bool {
        self.errno == libc::EEXIST
    }

    fn words(&self) -> String {
        match (self.errno, self.about) {
            (libc::EPERM | libc::EACCES, _) => "not permitted: needs CAP_NET_ADMIN".to_owned(),
            (libc::EOPNOTSUPP, About::NewDevice) => {
                "this kernel has no vxlan; load the module `vxlan`".to_owned()
            }
            (libc::EEXIST, About::NewDevice) => {
                "somebody else's device has this name or this network number".to_owned()
            }
            (libc::ENODEV, _) => "there is no such device".to_owned(),
            (errno, _) => io::Error::from_raw_os_error(errno).to_string(),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words())?;
        if self.said.is_empty() { Ok(()) } else { write!(f, " (kernel: {})", self.said) }
    }
}

#[cfg(test)]
mod tests {
    use super::{About, Refusal};

    #[test]
    fn a_refusal_says_what_to_do() {
        let words = |errno, about| Refusal { errno, said: String::new(), about }.to_string();
        assert_eq!(words(1, About::Other), "not permitted: needs CAP_NET_ADMIN");
        assert_eq!(words(95, About::NewDevice), "this kernel has no vxlan; load the module `vxlan`");
        assert_eq!(words(19, About::Other), "there is no such device");
        assert!(words(17, About::NewDevice).contains("somebody else's"));
        assert_eq!(words(95, About::Other), "Operation not supported (os error 95)");
        let said = Refusal { errno: 22, said: "Invalid prefix".to_owned(), about: About::Other };
        assert_eq!(said.to_string(), "Invalid argument (os error 22) (kernel: Invalid prefix)");
    }

    #[test]
    fn removing_what_is_not_there_is_no_fault_but_any_other_refusal_is() {
        for (errno, absent, present) in
            [(2, true, false), (3, true, false), (19, true, false), (99, true, false)]
        {
            let refusal = Refusal { errno, said: String::new(), about: About::Other };
            assert_eq!((refusal.was_absent(), refusal.was_present()), (absent, present));
        }
        for errno in [1, 13, 16, 17, 22, 95] {
            let refusal = Refusal { errno, said: String::new(), about: About::Other };
            assert_eq!((refusal.was_absent(), refusal.was_present()), (false, errno == 17));
        }
    }
}
