//! Messages of a stream: a head that tells where values are in the body, and the body.

use arrow_ipc::{
    Buffer, DictionaryBatchBuilder, FieldNode, MessageBuilder, MessageHeader, MetadataVersion,
    RecordBatchBuilder,
};
use flatbuffers::FlatBufferBuilder;

use crate::encode::EncodeError;

/// What comes before the length of a head.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// What ends a stream: a head of no length.
pub(super) const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// Heads, bodies and all buffers begin at a multiple of this, as Arrow recommends.
const ALIGNMENT: usize = 64;

/// What a message is.
#[derive(Debug, Clone, Copy)]
pub(super) enum MessageKind {
    Batch,
    /// The values of the dictionary of this number.
    Dictionary(i64),
}

/// A body while it is written, right to where it is sent from.
#[derive(Debug)]
pub(super) struct MessageBody<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    nodes: Vec<FieldNode>,
    buffers: Vec<Buffer>,
}

impl<'o> MessageBody<'o> {
    fn new(out: &'o mut Vec<u8>) -> Self {
        Self { start: out.len(), out, nodes: Vec::new(), buffers: Vec::new() }
    }

    /// Adds a field. Its buffers follow, and then the fields that it consists of.
    pub(super) fn node(&mut self, len: usize, nulls: usize) {
        self.nodes.push(FieldNode::new(len as i64, nulls as i64));
    }

    /// Adds a buffer.
    pub(super) fn buffer<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let start = self.out.len();
        let result = write(self.out);
        let len = self.out.len() - start;
        self.buffers.push(Buffer::new((start - self.start) as i64, len as i64));
        self.out.resize(self.start + (self.out.len() - self.start).next_multiple_of(ALIGNMENT), 0);
        result
    }

    fn head(&self, kind: MessageKind, rows: usize) -> Vec<u8> {
        let mut builder = FlatBufferBuilder::new();
        // Zeros too have a place: the length of a head depends on nothing but the types.
        builder.force_defaults(true);
        let nodes = builder.create_vector(&self.nodes);
        let buffers = builder.create_vector(&self.buffers);
        let mut batch = RecordBatchBuilder::new(&mut builder);
        batch.add_length(rows as i64);
        batch.add_nodes(nodes);
        batch.add_buffers(buffers);
        let batch = batch.finish();
        let (header_type, header) = match kind {
            MessageKind::Batch => (MessageHeader::RecordBatch, batch.as_union_value()),
            MessageKind::Dictionary(id) => {
                let mut dictionary = DictionaryBatchBuilder::new(&mut builder);
                dictionary.add_id(id);
                dictionary.add_data(batch);
                (MessageHeader::DictionaryBatch, dictionary.finish().as_union_value())
            }
        };
        let mut message = MessageBuilder::new(&mut builder);
        message.add_version(MetadataVersion::V5);
        message.add_header_type(header_type);
        message.add_header(header);
        message.add_bodyLength((self.out.len() - self.start) as i64);
        let message = message.finish();
        builder.finish(message, None);

        let flatbuffer = builder.finished_data();
        let prefix = CONTINUATION.len() + size_of::<i32>();
        let length = (prefix + flatbuffer.len()).next_multiple_of(ALIGNMENT);
        let mut head = Vec::with_capacity(length);
        head.extend_from_slice(&CONTINUATION);
        head.extend_from_slice(&((length - prefix) as i32).to_le_bytes());
        head.extend_from_slice(flatbuffer);
        head.resize(length, 0);
        head
    }
}

/// The length of the heads of messages with such a body, whatever its values are.
pub(super) fn head_len(
    kind: MessageKind,
    write: impl FnOnce(&mut MessageBody<'_>) -> Result<(), EncodeError>,
) -> Result<usize, EncodeError> {
    let mut scratch = Vec::new();
    let mut body = MessageBody::new(&mut scratch);
    write(&mut body)?;
    Ok(body.head(kind, 0).len())
}

/// Writes a message whose head has this length: first its body, then the head before it.
pub(super) fn write(
    out: &mut Vec<u8>,
    kind: MessageKind,
    rows: usize,
    head_len: usize,
    write: impl FnOnce(&mut MessageBody<'_>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.resize(start + head_len, 0);
    let mut body = MessageBody::new(out);
    write(&mut body)?;
    let head = body.head(kind, rows);
    out[start..start + head_len].copy_from_slice(&head);
    Ok(())
}
