//! Boots real guests.
