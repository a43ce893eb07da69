package firestore

import (
	"encoding/binary"
	"errors"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/protobuf/proto"

	"parley.internal/emulator/wal"
)

// journal keeps the commits of a store in a write-ahead log. One record holds the commit time in microseconds (eight
// bytes, little-endian) and a CommitRequest with the new versions of the documents and the deletes.
type journal struct{ log *wal.Log }

// journalFormat names the format of the records. A change of the format needs another number.
const journalFormat = "firestore 1"

// timeSize is the size of the commit time in a record, in bytes.
const timeSize = 8

// snapshotRecordSize is the size of documents, in bytes, at which a record of a snapshot ends.
const snapshotRecordSize = 1 << 20

// openJournal opens the journal in a directory and returns the state after the last commit in it. compactAt is as in
// wal.Options.
func openJournal(dir string, compactAt int64, ttl ttlPolicies) (*journal, *state, error) {
	// One builder applies all records in place: nothing else reads its state yet.
	b := newBuilder(newState(ttl), 0)
	log, err := wal.Open(dir, wal.Options{Format: journalFormat, CompactAt: compactAt}, func(record []byte) error {
		return replayRecord(record, b)
	})
	if err != nil {
		return nil, nil, err
	}
	b.written = 0 // no older state keeps replaced documents alive
	return &journal{log: log}, b.state, nil
}

func replayRecord(record []byte, b *builder) error {
	if len(record) < timeSize {
		return errors.New("the record has no commit time")
	}
	var req pb.CommitRequest
	if err := proto.Unmarshal(record[timeSize:], &req); err != nil {
		return err
	}
	b.time = max(b.time, int64(binary.LittleEndian.Uint64(record)))
	for _, w := range req.Writes {
		if d := w.GetUpdate(); d != nil {
			name, err := parseDocumentName(d.Name)
			if err != nil {
				return err
			}
			b.put(name, newDocument(d))
			continue
		}
		name, err := parseDocumentName(w.GetDelete())
		if err != nil {
			return err
		}
		b.delete(name)
	}
	b.changes = b.changes[:0]
	return nil
}

// commitRecord is the record of one commit.
func commitRecord(time int64, changes []change) wal.Record {
	return func(buf []byte) ([]byte, error) {
		req := &pb.CommitRequest{Writes: make([]*pb.Write, len(changes))}
		for i, c := range changes {
			if c.doc != nil {
				req.Writes[i] = &pb.Write{Operation: &pb.Write_Update{Update: c.doc.answer(nil)}}
			} else {
				req.Writes[i] = &pb.Write{Operation: &pb.Write_Delete{Delete: c.name}}
			}
		}
		buf = binary.LittleEndian.AppendUint64(buf, uint64(time))
		return proto.MarshalOptions{}.MarshalAppend(buf, req)
	}
}

// append makes commits durable, with one write for all of them.
func (j *journal) append(made []*builder) error {
	var records []wal.Record
	for _, b := range made {
		if len(b.changes) > 0 { // a builder without changes made an index only
			records = append(records, commitRecord(b.time, b.changes))
		}
	}
	if len(records) == 0 {
		return nil
	}
	batch, err := j.log.Append(records...)
	if err != nil {
		return err
	}
	return batch.Wait()
}

// compact starts a snapshot if the log has grown enough. s must be the state after the last append.
func (j *journal) compact(s *state) {
	j.log.Compact(func(snapshot *wal.Snapshot) error { return writeSnapshot(snapshot, s) })
}

func writeSnapshot(snapshot *wal.Snapshot, s *state) (err error) {
	var changes []change
	pending := 0
	flush := func() {
		err = snapshot.Add(commitRecord(s.time, changes))
		changes, pending = changes[:0], 0
	}
	s.collections.Scan(func(c *collection) bool {
		c.docs.Scan(func(d *document) bool {
			changes = append(changes, change{name: d.name, doc: d})
			if pending += d.size; pending > snapshotRecordSize {
				flush()
			}
			return err == nil
		})
		return err == nil
	})
	if err == nil {
		flush() // also without documents: the record keeps the time
	}
	return err
}

func (j *journal) close() error { return j.log.Close() }
