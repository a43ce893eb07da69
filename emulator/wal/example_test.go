package wal_test

import (
	"fmt"
	"log"
	"os"

	"parley.internal/emulator/wal"
)

// A program appends records, and replays them when it opens the log again.
func Example() {
	dir, err := os.MkdirTemp("", "wal")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	replay := func(record []byte) error {
		fmt.Printf("replayed %s\n", record)
		return nil
	}
	for range 2 {
		l, err := wal.Open(dir, wal.Options{Format: "greetings 1"}, replay)
		if err != nil {
			log.Fatal(err)
		}
		batch, err := l.Append(func(b []byte) ([]byte, error) { return append(b, "hello"...), nil })
		if err != nil {
			log.Fatal(err)
		}
		if err := batch.Wait(); err != nil {
			log.Fatal(err)
		}
		fmt.Println("durable")
		if err := l.Close(); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// durable
	// replayed hello
	// durable
}
