package twitch

import (
	"os"
	"testing"

	"parley.internal/emulator/emulatortest"
)

func TestMain(m *testing.M) {
	emulatortest.Parallel(6)
	os.Exit(m.Run())
}
