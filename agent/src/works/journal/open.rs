//! Opening.
use super::*;
pub(super) fn open(_dir: &Path) -> Result<Opened, OpenError> {
    unimplemented!()
}
