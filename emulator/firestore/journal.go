package firestore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/protobuf/proto"
)

// A journal keeps the commits of a store in a directory.
//
// Commits are appended to the log of the current generation, log-G. From time
// to time the journal starts log-G+1 and writes the state between the two to
// snapshot-G+1; when that is complete under its name, older files go. So the
// content is the newest snapshot followed by the logs from its generation on.
//
// Both kinds of file are a sequence of records: the length of the payload and
// its CRC-32C, four bytes each and little-endian, then the payload, which is
// the time of the commit in microseconds (eight bytes) and a CommitRequest
// with the new versions of documents and the deletes. A process that dies
// leaves at most one record incomplete, at the end of the last log.
type journal struct {
	dir        string
	lock       io.Closer
	log        *os.File
	generation uint64
	logged     int64 // bytes in logs since the newest snapshot
	compactAt  int64 // bytes in logs that are worth a new snapshot
	failed     error // an append that failed; what the log ends in is unknown

	compaction sync.WaitGroup // at most one goroutine

	mu         sync.Mutex // guards the outcome of a compaction
	compacting bool
	compactErr error
	snapshot   int64 // size of the newest snapshot in bytes
}

// minCompact keeps small journals from being rewritten all the time.
const minCompact = 64 << 20 // bytes

const recordHeader = 8 // bytes

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openJournal reads what a directory holds and makes it ready for appends.
func openJournal(dir string, compactAt int64) (*journal, *state, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, nil, err
	}
	j := &journal{dir: dir, lock: lock, compactAt: compactAt}
	s, err := j.load()
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	return j, s, nil
}

func (j *journal) logPath(generation uint64) string {
	return filepath.Join(j.dir, fmt.Sprintf("log-%016x", generation))
}

func (j *journal) snapshotPath(generation uint64) string {
	return filepath.Join(j.dir, fmt.Sprintf("snapshot-%016x", generation))
}

// load replays the newest snapshot and the logs after it.
func (j *journal) load() (*state, error) {
	snapshots, logs, err := j.list()
	if err != nil {
		return nil, err
	}
	var oldest uint64
	// One builder takes all: nobody else sees what it changes in place.
	b := newBuilder(newState(), 0)
	if len(snapshots) > 0 {
		oldest = snapshots[len(snapshots)-1]
		size, err := replayFile(j.snapshotPath(oldest), b, false)
		if err != nil {
			return nil, err
		}
		j.snapshot = size
	}
	j.generation = oldest
	for _, g := range logs {
		if g < oldest {
			continue
		}
		isLast := g == logs[len(logs)-1]
		size, err := replayFile(j.logPath(g), b, isLast)
		if err != nil {
			return nil, err
		}
		j.logged += size
		j.generation = g
		if isLast {
			if err := os.Truncate(j.logPath(g), size); err != nil {
				return nil, err
			}
		}
	}
	if j.log, err = os.OpenFile(j.logPath(j.generation), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
		return nil, err
	}
	b.written = 0 // it holds nothing that an older state alone would need
	if err := errors.Join(j.log.Sync(), syncDir(j.dir), j.removeBefore(oldest)); err != nil {
		return nil, errors.Join(err, j.log.Close())
	}
	return b.state, nil
}

// list returns the generations of which there are snapshots and logs.
func (j *journal) list() (snapshots, logs []uint64, err error) {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		kind, number, _ := strings.Cut(e.Name(), "-")
		var g uint64
		if n, err := fmt.Sscanf(number, "%016x", &g); n != 1 || err != nil || len(number) != 16 {
			continue
		}
		switch kind {
		case "snapshot":
			snapshots = append(snapshots, g)
		case "log":
			logs = append(logs, g)
		}
	}
	slices.Sort(snapshots)
	slices.Sort(logs)
	return snapshots, logs, nil
}

// removeBefore removes what a snapshot of that generation makes superfluous.
func (j *journal) removeBefore(generation uint64) error {
	snapshots, logs, err := j.list()
	if err != nil {
		return err
	}
	for _, g := range snapshots {
		if g < generation {
			err = errors.Join(err, os.Remove(j.snapshotPath(g)))
		}
	}
	for _, g := range logs {
		if g < generation {
			err = errors.Join(err, os.Remove(j.logPath(g)))
		}
	}
	return err
}

func replayFile(path string, b *builder, tornTail bool) (size int64, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := replay(data, b, tornTail)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return int64(n), nil
}

// replay puts records into b and returns how many bytes of data they are. It
// stops without an error at an incomplete record that is the last one where
// tornTail allows it.
func replay(data []byte, b *builder, tornTail bool) (int, error) {
	for n := 0; ; {
		payload, ok := cutRecord(data[n:])
		if !ok {
			if n == len(data) || tornTail && !recordFollows(data[n:]) {
				return n, nil
			}
			return n, fmt.Errorf("the record at byte %d is damaged", n)
		}
		if err := replayRecord(payload, b); err != nil {
			return n, fmt.Errorf("the record at byte %d: %w", n, err)
		}
		n += recordHeader + len(payload)
	}
}

// cutRecord returns the payload of the record at the start of data, or false
// where no whole record is there.
func cutRecord(data []byte) ([]byte, bool) {
	if len(data) < recordHeader {
		return nil, false
	}
	size := uint64(binary.LittleEndian.Uint32(data))
	// The shortest payload is a time, so a run of zeros is no record.
	if size < 8 || size > uint64(len(data)-recordHeader) {
		return nil, false
	}
	payload := data[recordHeader : recordHeader+size]
	return payload, crc32.Checksum(payload, castagnoli) == binary.LittleEndian.Uint32(data[4:])
}

// recordFollows reports whether a whole record comes after the damaged one at
// the start of data: then that one is not the end that a crash leaves.
func recordFollows(data []byte) bool {
	if len(data) < recordHeader {
		return false
	}
	size := uint64(binary.LittleEndian.Uint32(data))
	if size >= uint64(len(data)-recordHeader) {
		return false
	}
	_, ok := cutRecord(data[recordHeader+size:])
	return ok
}

func replayRecord(payload []byte, b *builder) error {
	var req pb.CommitRequest
	if err := proto.Unmarshal(payload[8:], &req); err != nil {
		return err
	}
	b.time = max(b.time, int64(binary.LittleEndian.Uint64(payload)))
	for _, w := range req.Writes {
		if d := w.GetUpdate(); d != nil {
			name, err := parseDocumentName(d.Name)
			if err != nil {
				return err
			}
			b.put(name, d)
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

// appendRecord appends the record of one commit to buf.
func appendRecord(buf []byte, time int64, changes []change) ([]byte, error) {
	req := &pb.CommitRequest{Writes: make([]*pb.Write, len(changes))}
	for i, c := range changes {
		if c.doc != nil {
			req.Writes[i] = &pb.Write{Operation: &pb.Write_Update{Update: c.doc}}
		} else {
			req.Writes[i] = &pb.Write{Operation: &pb.Write_Delete{Delete: c.name}}
		}
	}
	start := len(buf)
	buf = append(buf, make([]byte, recordHeader)...)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(time))
	buf, err := proto.MarshalOptions{}.MarshalAppend(buf, req)
	if err != nil {
		return nil, err
	}
	payload := buf[start+recordHeader:]
	if uint64(len(payload)) > 1<<32-1 {
		return nil, errors.New("the commit is larger than 4 GiB")
	}
	binary.LittleEndian.PutUint32(buf[start:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(buf[start+4:], crc32.Checksum(payload, castagnoli))
	return buf, nil
}

// append writes commits to the log, with one sync for all of them.
func (j *journal) append(made []*builder) error {
	if j.failed != nil {
		return j.failed
	}
	var buf []byte
	for _, b := range made {
		if len(b.changes) == 0 {
			continue // it made an index only
		}
		var err error
		if buf, err = appendRecord(buf, b.time, b.changes); err != nil {
			return err
		}
	}
	if len(buf) == 0 {
		return nil
	}
	_, err := j.log.Write(buf)
	if err == nil {
		err = j.log.Sync()
	}
	if err != nil {
		// Part of it may be in the log. To go on would put records behind a
		// torn one, where no replay finds them.
		j.failed = fmt.Errorf("an earlier append failed: %w", err)
		return err
	}
	j.logged += int64(len(buf))
	return nil
}

// compact begins a new snapshot where the logs have grown enough since the
// last one. s must be the state after all that was appended.
func (j *journal) compact(s *state) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed != nil || j.compacting || j.logged < max(j.compactAt, 2*j.snapshot) {
		return
	}
	next, err := os.OpenFile(j.logPath(j.generation+1), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o644)
	if err == nil {
		err = syncDir(j.dir)
	}
	if err != nil {
		j.compactErr = err
		j.logged = 0 // the next attempt is as far away as the first one was
		return
	}
	if err := j.log.Close(); err != nil {
		j.compactErr = err // it was synced, so nothing is lost
	}
	j.log, j.logged = next, 0
	j.generation++
	generation := j.generation
	j.compacting = true
	j.compaction.Go(func() {
		size, err := j.writeSnapshot(generation, s)
		j.mu.Lock()
		defer j.mu.Unlock()
		j.compacting = false
		if err != nil {
			j.compactErr = err
			return
		}
		j.snapshot = size
	})
}

// writeSnapshot puts the whole state into a file that has its name only when
// it is complete.
func (j *journal) writeSnapshot(generation uint64, s *state) (size int64, err error) {
	temporary := filepath.Join(j.dir, "snapshot.tmp")
	f, err := os.Create(temporary)
	if err != nil {
		return 0, err
	}
	defer f.Close() // a second Close after the one below is harmless
	w := bufio.NewWriterSize(f, 1<<20)
	var changes []change
	pending := 0
	flush := func() {
		var record []byte
		if record, err = appendRecord(nil, s.time, changes); err == nil {
			_, err = w.Write(record)
			size += int64(len(record))
		}
		changes, pending = changes[:0], 0
	}
	s.collections.Scan(func(c *collection) bool {
		c.docs.Scan(func(d *document) bool {
			changes = append(changes, change{name: d.proto.Name, doc: d.proto})
			if pending += proto.Size(d.proto); pending > 1<<20 {
				flush()
			}
			return err == nil
		})
		return err == nil
	})
	if err == nil {
		flush() // also where no document is left: it keeps the time
	}
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Rename(temporary, j.snapshotPath(generation))
	}
	if err == nil {
		err = syncDir(j.dir)
	}
	if err == nil {
		err = j.removeBefore(generation)
	}
	return size, err
}

// close ends a compaction under way and gives the directory free.
func (j *journal) close() error {
	j.compaction.Wait()
	return errors.Join(j.compactErr, j.log.Close(), j.lock.Close())
}

// syncDir makes the names of new files durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
