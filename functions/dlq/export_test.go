package dlq

// Reset has Handle connect anew, as a new instance does.
func Reset() {
	mu.Lock()
	defer mu.Unlock()
	if current != nil {
		if err := current.bus.Close(); err != nil {
			panic(err)
		}
		current = nil
	}
}
