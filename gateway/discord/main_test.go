package discord

import (
	"os"
	"testing"

	"parley.internal/emulator/emulatortest"
)

func TestMain(m *testing.M) {
	emulatortest.Parallel(8)
	os.Exit(m.Run())
}
