// Package wal keeps a write-ahead log in a directory. A server appends a record for each change and replays all
// records when it starts again.
//
// [Open] replays the directory and returns a [Log]. [Log.Append] hands over records; [Batch.Wait] returns when the
// records are on disk. Records appended while one write is under way share the next write and its fsync.
// [Log.Compact] replaces old records by a snapshot.
//
// # Files
//
// Records go to the log file of the current generation, log-G. A compaction starts log-G+1 and writes the state at
// the end of log-G to snapshot-G+1. Older files are removed when the snapshot is complete under its final name. The
// content is the newest snapshot, followed by the log files from the snapshot's generation on.
//
// Each file starts with a header line with the format of the records. A sequence of records follows: the length of
// the payload and its CRC-32C, four bytes each and little-endian, then the payload.
//
// A crash leaves at most one incomplete write, at the end of the last log file. Open keeps the intact records of the
// write and cuts off the rest. All other damage is an error.
//
// The package does not read the content of records, and must not import packages of this module.
package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lazyDelay is the longest time that a record of AppendLazy waits for a write. A crash loses the waiting records,
	// but many records share one fsync.
	lazyDelay = 50 * time.Millisecond
	// maxLazyBytes is the size of the buffer, in bytes, at which lazy records are written before lazyDelay.
	maxLazyBytes = 1 << 20
	// maxSpareBytes is the largest buffer kept for the next write, in bytes.
	maxSpareBytes = 16 << 20
	// defaultCompactAt is large, so that a small log is not compacted all the time. In bytes.
	defaultCompactAt = 64 << 20
)

// ErrClosed is the error of an append after Close.
var ErrClosed = errors.New("wal: the log is closed")

// Options configures a Log.
type Options struct {
	// Format names the owner and the version of the records, for example "pubsub 1". Format is part of the header line of
	// each file, so it must have no line break. Open refuses files of another format.
	Format string
	// CompactAt is the size in bytes at which the log files are compacted. Zero means 64 MiB. A compaction also waits
	// until the log files are twice as large as the newest snapshot.
	CompactAt int64
}

// Record appends the encoding of one record to b, from 1 byte to 4 GiB, and returns the extended slice. The log calls a
// Record under its lock: a Record must be quick and must not call the log.
type Record func(b []byte) ([]byte, error)

// Batch is the set of records made durable by one write. Append returns it.
type Batch struct {
	done chan struct{}
	err  error // valid when done is closed
}

func newBatch() *Batch { return &Batch{done: make(chan struct{})} }

// Wait returns when the records are on disk, or with the error of the failed write. Any number of goroutines may wait.
func (b *Batch) Wait() error {
	<-b.done
	return b.err
}

// Log is an open write-ahead log, made by Open. Its methods may be called concurrently. After the first failed write
// every append returns the error of this write: the end of the file is unknown, and a replay finds no record behind a
// torn one.
type Log struct {
	dir  string
	opts Options
	lock io.Closer

	wakes   chan struct{} // holds a token when the buffer must be written
	flusher sync.WaitGroup

	mu     sync.Mutex
	buf    []byte
	batch  *Batch // of the records in buf
	timer  *time.Timer
	timed  bool  // timer is running
	err    error // of the first failed write
	closed bool

	due atomic.Bool // the log has grown enough for a compaction, and none is under way

	// fileMu guards the fields below. The lock order is fileMu, then mu.
	fileMu       sync.Mutex
	file         *os.File // the log file of the current generation
	generation   uint64
	base         uint64 // generation of the newest snapshot; 0 before the first
	logged       int64  // bytes in the log files since the start of the latest compaction
	snapshotSize int64  // bytes in the newest snapshot
	compacting   bool
	compactErr   error
	compaction   sync.WaitGroup // at most one goroutine
}

// Open creates the directory if necessary, locks the directory, and calls replay for each record: first for the records
// of the newest snapshot, then for later records in the order of the appends. A record is valid during the call only.
//
// Open fails if the directory is in use or has unknown files, if a file is damaged, or if replay fails. Only on Unix does
// Open detect another process that uses the directory. The caller must Close the log.
func Open(dir string, o Options, replay func(record []byte) error) (*Log, error) {
	if o.CompactAt == 0 {
		o.CompactAt = defaultCompactAt
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	lock, err := lockFile(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("wal: lock %s: %w", dir, err)
	}
	l := &Log{dir: dir, opts: o, lock: lock, wakes: make(chan struct{}, 1), batch: newBatch()}
	if err := l.load(replay); err != nil {
		return nil, errors.Join(fmt.Errorf("wal: open %s: %w", dir, err), lock.Close())
	}
	l.checkDue()
	l.timer = time.AfterFunc(time.Hour, l.wake)
	l.timer.Stop()
	l.flusher.Go(l.flush)
	return l, nil
}

// Append adds records to the next write. The write starts as soon as the write under way ends. All records are in one
// write, or none if an encoding fails. A crash during the write may keep only the first records.
//
// Append does not wait for the disk: Batch.Wait does. The error is ErrClosed, the first failed write, or an encoding that
// failed.
func (l *Log) Append(records ...Record) (*Batch, error) { return l.append(records, false) }

// AppendLazy adds records to a write within the next 50 ms. A crash before the write loses the records. The errors are
// those of Append. If the write itself fails, later appends and Close return the error.
func (l *Log) AppendLazy(records ...Record) error {
	_, err := l.append(records, true)
	return err
}

func (l *Log) append(records []Record, lazy bool) (*Batch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, fmt.Errorf("an earlier write failed: %w", l.err)
	}
	if l.closed {
		return nil, ErrClosed
	}
	buf := l.buf
	for _, r := range records {
		var err error
		if buf, err = appendFrame(buf, r); err != nil {
			return nil, fmt.Errorf("wal: encode a record: %w", err)
		}
	}
	l.buf = buf
	switch {
	case !lazy || len(buf) > maxLazyBytes:
		l.signal()
	case !l.timed:
		l.timed = true
		l.timer.Reset(lazyDelay)
	}
	return l.batch, nil
}

// signal makes the flusher write the buffer. The caller holds mu.
func (l *Log) signal() {
	select {
	case l.wakes <- struct{}{}:
	default:
	}
}

// wake runs on the timer's goroutine. Close may have closed wakes before.
func (l *Log) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.signal()
	}
}

// flush writes batches until the log is closed.
func (l *Log) flush() {
	var spare []byte
	for range l.wakes {
		l.mu.Lock()
		buf, batch, err := l.buf, l.batch, l.err
		l.buf, l.batch = spare[:0], newBatch()
		l.timed = false
		l.timer.Stop()
		l.mu.Unlock()
		if err == nil && len(buf) > 0 {
			err = l.write(buf)
		}
		if err != nil {
			l.mu.Lock()
			l.err = err
			l.mu.Unlock()
			batch.err = err
		}
		close(batch.done)
		if spare = buf; cap(spare) > maxSpareBytes {
			spare = nil
		}
	}
}

func (l *Log) write(buf []byte) error {
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	if _, err := l.file.Write(buf); err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	l.logged += int64(len(buf))
	l.checkDue()
	return nil
}

// Close writes the remaining records, waits for a compaction under way, and unlocks the directory. It returns the error
// of the first failed write and of the latest failed compaction. It must be called once.
func (l *Log) Close() error {
	l.mu.Lock()
	l.closed = true
	l.timer.Stop()
	last := l.batch
	l.signal()
	l.mu.Unlock()
	err := last.Wait()
	close(l.wakes) // after closed is set nothing sends
	l.flusher.Wait()
	// When fileMu is free, every running Compact has started its goroutine.
	l.fileMu.Lock()
	//lint:ignore SA2001 The lock only waits for a running Compact.
	l.fileMu.Unlock()
	l.compaction.Wait()
	return errors.Join(err, l.compactErr, l.file.Close(), l.lock.Close())
}
