package wal

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Names in the directory.
const (
	lockName       = "lock"
	logPrefix      = "log-"
	snapshotPrefix = "snapshot-"
	temporaryName  = "snapshot.tmp" // a snapshot that is not complete
)

const frameHeader = 8 // bytes: length and checksum of the payload

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendFrame appends a record in the format of the files: length, checksum, payload.
func appendFrame(b []byte, r Record) ([]byte, error) {
	start := len(b)
	b, err := r(append(b, make([]byte, frameHeader)...))
	if err != nil {
		return nil, err
	}
	payload := b[start+frameHeader:]
	switch n := uint64(len(payload)); {
	case n == 0:
		return nil, errors.New("the record is empty")
	case n > 1<<32-1:
		return nil, errors.New("the record is larger than 4 GiB")
	}
	binary.LittleEndian.PutUint32(b[start:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(payload, castagnoli))
	return b, nil
}

func (l *Log) header() []byte { return []byte("wal 1 " + l.opts.Format + "\n") }

func (l *Log) path(prefix string, generation uint64) string {
	return filepath.Join(l.dir, fmt.Sprintf("%s%016x", prefix, generation))
}

// list returns the generations of the snapshots and of the log files, ascending. An unknown file is an error: another
// program, or another version of this package, owns the directory. Names with a leading dot are ignored.
func (l *Log) list() (snapshots, logs []uint64, err error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		name := e.Name()
		if name == lockName || name == temporaryName || strings.HasPrefix(name, ".") {
			continue
		}
		if g, ok := generationOf(name, snapshotPrefix); ok {
			snapshots = append(snapshots, g)
		} else if g, ok := generationOf(name, logPrefix); ok {
			logs = append(logs, g)
		} else {
			return nil, nil, fmt.Errorf("the file %q does not belong to this log: use another directory, or delete the whole directory to start empty", name)
		}
	}
	slices.Sort(snapshots)
	slices.Sort(logs)
	return snapshots, logs, nil
}

func generationOf(name, prefix string) (g uint64, ok bool) {
	number, ok := strings.CutPrefix(name, prefix)
	if !ok || len(number) != 16 {
		return 0, false
	}
	n, err := fmt.Sscanf(number, "%016x", &g)
	return g, n == 1 && err == nil
}

// load replays the newest snapshot and the log files after it, and opens the last log file for appends.
func (l *Log) load(replay func([]byte) error) error {
	snapshots, logs, err := l.list()
	if err != nil {
		return err
	}
	if n := len(snapshots); n > 0 {
		l.base = snapshots[n-1]
		if l.snapshotSize, err = l.replayFile(l.path(snapshotPrefix, l.base), replay, false); err != nil {
			return err
		}
	}
	l.generation = l.base
	// Log files of older generations remain if a crash interrupted their removal.
	logs = slices.DeleteFunc(logs, func(g uint64) bool { return g < l.base })
	for i, g := range logs {
		if want := l.base + uint64(i); g != want {
			return fmt.Errorf("the file %s is missing: restore the directory from a copy, or delete the whole directory to start empty", filepath.Base(l.path(logPrefix, want)))
		}
		isLast := i == len(logs)-1
		size, err := l.replayFile(l.path(logPrefix, g), replay, isLast)
		if err != nil {
			return err
		}
		l.logged += size
		l.generation = g
		if isLast {
			if err := os.Truncate(l.path(logPrefix, g), size); err != nil {
				return err
			}
		}
	}
	if l.file, err = l.openLog(l.generation); err != nil {
		return err
	}
	if err := l.removeBefore(l.base); err != nil {
		return errors.Join(err, l.file.Close())
	}
	return nil
}

// openLog opens the log file of a generation for appends and makes its name and header durable.
func (l *Log) openLog(generation uint64) (*os.File, error) {
	f, err := os.OpenFile(l.path(logPrefix, generation), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() == 0 {
		_, err = f.Write(l.header())
	}
	if err = errors.Join(err, f.Sync(), syncDir(l.dir)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// removeBefore removes the files replaced by the snapshot of a generation, and an incomplete snapshot.
func (l *Log) removeBefore(generation uint64) error {
	if err := os.Remove(filepath.Join(l.dir, temporaryName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	snapshots, logs, err := l.list()
	if err != nil {
		return err
	}
	for _, g := range snapshots {
		if g < generation {
			err = errors.Join(err, os.Remove(l.path(snapshotPrefix, g)))
		}
	}
	for _, g := range logs {
		if g < generation {
			err = errors.Join(err, os.Remove(l.path(logPrefix, g)))
		}
	}
	return err
}

// replayFile calls replay for each record of a file and returns the size of the intact part, in bytes. An incomplete
// write at the end is an error unless tornTail is true.
func (l *Log) replayFile(path string, replay func([]byte) error, tornTail bool) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	s := &scanner{file: f, r: bufio.NewReaderSize(f, 1<<20), size: info.Size()}
	n, err := s.scan(l.header(), replay, tornTail)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return n, nil
}

// scanner reads one file from its start.
type scanner struct {
	file *os.File
	r    *bufio.Reader
	size int64 // of the file, in bytes
	at   int64 // bytes read
	buf  []byte
}

func (s *scanner) scan(header []byte, replay func([]byte) error, tornTail bool) (int64, error) {
	got := make([]byte, len(header))
	n, err := io.ReadFull(s.r, got)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, err
	}
	if got = got[:n]; !bytes.Equal(got, header) {
		// The header is durable before the first record, so a torn header has no record behind it.
		isTorn := bytes.HasPrefix(header, got) || len(bytes.Trim(got, "\x00")) == 0
		if tornTail && s.size <= int64(len(header)) && isTorn {
			return 0, nil
		}
		return 0, fmt.Errorf("the file does not have the format %q: use another directory, or delete the whole directory to start empty", bytes.TrimSpace(header))
	}
	s.at = int64(n)
	for s.at < s.size {
		record, err := s.next()
		if err != nil {
			return 0, err
		}
		if record == nil {
			if tornTail && !s.recordFollows() {
				return s.at, nil
			}
			return 0, fmt.Errorf("the record at byte %d is damaged: restore the directory from a copy, or delete the whole directory to start empty", s.at)
		}
		if err := replay(record); err != nil {
			return 0, fmt.Errorf("the record at byte %d: %w", s.at, err)
		}
		s.at += frameHeader + int64(len(record))
	}
	return s.at, nil
}

// next returns the payload of the record at s.at, or nil if no intact record starts there.
func (s *scanner) next() ([]byte, error) {
	var head [frameHeader]byte
	if s.size-s.at < frameHeader {
		return nil, nil
	}
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(head[:]))
	// A run of zeros is not an empty record.
	if n == 0 || n > s.size-s.at-frameHeader {
		return nil, nil
	}
	if int64(cap(s.buf)) < n {
		s.buf = make([]byte, n)
	}
	payload := s.buf[:n]
	if _, err := io.ReadFull(s.r, payload); err != nil {
		return nil, err
	}
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, nil
	}
	return payload, nil
}

// recordFollows reports whether an intact record follows the damaged record at s.at. Such damage does not come from a
// crash during the last write.
func (s *scanner) recordFollows() bool {
	var head [frameHeader]byte
	if _, err := s.file.ReadAt(head[:], s.at); err != nil {
		return false
	}
	from := s.at + frameHeader + int64(binary.LittleEndian.Uint32(head[:]))
	if from >= s.size {
		return false
	}
	next := &scanner{r: bufio.NewReader(io.NewSectionReader(s.file, from, s.size-from)), size: s.size, at: from}
	record, err := next.next()
	return err == nil && record != nil
}

// syncDir makes the names of new files durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
