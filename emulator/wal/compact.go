package wal

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Snapshot writes the records that replace the older part of the log. Log.Compact passes a Snapshot to its write
// function. A Snapshot is valid during the call of write only, for one goroutine.
type Snapshot struct {
	log        *Log
	base       uint64 // generation of the previous snapshot; 0 without one
	generation uint64
	w          *bufio.Writer
	size       int64  // bytes written
	buf        []byte // for the next record
}

// Compact starts a compaction if the log has grown enough and none is under way. Compact itself only starts the next log
// file: write runs later, on a goroutine of the log. write must Add records equivalent to all records durable at the call
// of Compact, and to no later record. A caller with concurrent appends gets exactly these records from Snapshot.Replay.
//
// A failed compaction loses nothing. Close returns the error. The next attempt comes when the log has grown as much
// again: by CompactAt, and by twice the size of the newest snapshot.
func (l *Log) Compact(write func(s *Snapshot) error) {
	if !l.due.Load() { // without fileMu: a write holds fileMu during the fsync
		return
	}
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	if !l.due.Load() || !l.writable() {
		return
	}
	defer l.checkDue()
	if err := l.rotate(); err != nil {
		l.compactErr = fmt.Errorf("wal: compact: %w", err)
		return
	}
	s := &Snapshot{log: l, base: l.base, generation: l.generation}
	l.compacting = true
	l.compaction.Go(func() {
		err := s.run(write)
		l.fileMu.Lock()
		defer l.fileMu.Unlock()
		defer l.checkDue()
		l.compacting = false
		if err != nil {
			l.compactErr = fmt.Errorf("wal: compact: %w", err)
			return
		}
		l.snapshotSize = s.size
		l.base = s.generation
	})
}

// checkDue sets due. The caller holds fileMu, or is Open.
func (l *Log) checkDue() {
	l.due.Store(!l.compacting && l.logged >= max(l.opts.CompactAt, 2*l.snapshotSize))
}

func (l *Log) writable() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err == nil && !l.closed
}

// rotate starts the log file of the next generation. The caller holds fileMu.
func (l *Log) rotate() error {
	l.logged = 0 // also after an error: the next attempt is not made at once
	next, err := l.openLog(l.generation + 1)
	if err != nil {
		// Appends go on in the current file, so the current file must stay the last one.
		return errors.Join(err, os.RemoveAll(l.path(logPrefix, l.generation+1)))
	}
	err = l.file.Close() // all its records are synced: an error loses nothing
	l.file = next
	l.generation++
	return err
}

// Replay calls f for each record durable before the compaction: first for the records of the previous snapshot, then for
// the later records in the order of the appends. A record is valid during the call only. Replay returns the first error
// of f, or an error if a file is damaged.
func (s *Snapshot) Replay(f func(record []byte) error) error {
	if s.base > 0 {
		if _, err := s.log.replayFile(s.log.path(snapshotPrefix, s.base), f, false); err != nil {
			return err
		}
	}
	for g := s.base; g < s.generation; g++ {
		if _, err := s.log.replayFile(s.log.path(logPrefix, g), f, false); err != nil {
			return err
		}
	}
	return nil
}

// Add appends a record to the snapshot. write must return an error of Add.
func (s *Snapshot) Add(r Record) error {
	b, err := appendFrame(s.buf[:0], r)
	if err != nil {
		return err
	}
	s.buf = b
	s.size += int64(len(b))
	_, err = s.w.Write(b)
	return err
}

// run writes the snapshot to a temporary file, renames the complete file, and removes the replaced files.
func (s *Snapshot) run(write func(s *Snapshot) error) error {
	l := s.log
	temporary := filepath.Join(l.dir, temporaryName)
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	s.w = bufio.NewWriterSize(f, 1<<20)
	s.size = int64(len(l.header()))
	_, err = s.w.Write(l.header())
	if err == nil {
		err = write(s)
	}
	if err == nil {
		err = s.w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	if err := os.Rename(temporary, l.path(snapshotPrefix, s.generation)); err != nil {
		return err
	}
	if err := syncDir(l.dir); err != nil {
		return err
	}
	return l.removeBefore(s.generation)
}
