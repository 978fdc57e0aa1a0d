//! Whether a message is whole: the decoder takes what stands in one at its word, and panics where that is not
//! there.

/// What is to be thought of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Whole,
    /// All is there, and its texts are not UTF-8.
    NotUtf8,
    /// Something is not there, or there is more.
    Broken,
}

/// Of a message after its length: of this type, or without one, as the first ones are.
pub(super) fn of(kind: Option<u8>, body: &[u8]) -> Shape {
    let mut reader = Reader { rest: body, is_utf8: true };
    match reader.message(kind) {
        Some(()) if !reader.rest.is_empty() => Shape::Broken,
        Some(()) if reader.is_utf8 => Shape::Whole,
        Some(()) => Shape::NotUtf8,
        None => Shape::Broken,
    }
}

struct Reader<'b> {
    rest: &'b [u8],
    is_utf8: bool,
}

impl<'b> Reader<'b> {
    fn message(&mut self, kind: Option<u8>) -> Option<()> {
        match kind {
            None => self.startup(),
            Some(b'Q' | b'p' | b'f') => self.text().map(drop),
            Some(b'P') => {
                self.text()?;
                self.text()?;
                self.each(|all| all.bytes(4).map(drop))
            }
            Some(b'B') => {
                self.text()?;
                self.text()?;
                self.each(|all| all.bytes(2).map(drop))?;
                self.each(|all| match i32::from_be_bytes(all.number()?) {
                    -1 => Some(()),
                    length => all.bytes(usize::try_from(length).ok()?).map(drop),
                })?;
                self.each(|all| all.bytes(2).map(drop))
            }
            Some(b'C' | b'D') => {
                let [target] = self.number()?;
                matches!(target, b'S' | b'P').then_some(())?;
                self.text().map(drop)
            }
            Some(b'E') => {
                self.text()?;
                self.bytes(4).map(drop)
            }
            Some(b'd' | b'X') => {
                self.rest = &[];
                Some(())
            }
            Some(_) => Some(()),
        }
    }

    fn startup(&mut self) -> Option<()> {
        match u32::from_be_bytes(self.number()?) {
            80_877_103 | 80_877_104 => Some(()),   // asks for encryption
            80_877_102 => self.bytes(8).map(drop), // cancels
            _ => loop {
                if self.text()?.is_empty() {
                    return Some(());
                }
                self.text()?;
            },
        }
    }

    fn bytes(&mut self, count: usize) -> Option<&'b [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(bytes)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    /// What stands before the next NUL.
    fn text(&mut self) -> Option<&'b [u8]> {
        let text = self.bytes(self.rest.iter().position(|byte| *byte == 0)?)?;
        self.is_utf8 &= std::str::from_utf8(text).is_ok();
        self.bytes(1)?;
        Some(text)
    }

    /// A count, and so many of these.
    fn each(&mut self, item: impl Fn(&mut Self) -> Option<()>) -> Option<()> {
        (0..u16::from_be_bytes(self.number()?)).try_for_each(|_| item(self))
    }
}
