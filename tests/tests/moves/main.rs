//! Whole migrations: real guests between two sites over a real WAN, with users who must not notice.

mod wan;
