package port

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const ports = 200

func TestMain(m *testing.M) {
	if os.Getenv("PRINT_FREE_PORTS") == "" {
		os.Exit(m.Run())
	}
	for range ports {
		addr, err := Free()
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString(addr + "\n")
	}
}

func TestAPortIsGivenOnceToAllProcesses(t *testing.T) {
	given := map[string]bool{}
	add := func(addr string) {
		t.Helper()
		if given[addr] {
			t.Errorf("%s was given twice", addr)
		}
		given[addr] = true
	}
	for range ports {
		addr, err := Free()
		if err != nil {
			t.Fatal(err)
		}
		add(addr)
		lis, err := net.Listen("tcp", addr)
		if err != nil {
			t.Errorf("the port is not free: %v", err)
			continue
		}
		lis.Close()
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PRINT_FREE_PORTS=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for addr := range strings.Lines(string(out)) {
		add(strings.TrimSpace(addr))
	}
	if len(given) != 2*ports {
		t.Errorf("%d ports, want %d", len(given), 2*ports)
	}
}
