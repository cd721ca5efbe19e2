package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// storage is a directory that drivers of several clusters may share:
//
//	volumes/ID/{volume.json,data/}
//	snapshots/ID/{snapshot.json,data/}
//	groups/ID/group.json
//	behaviour/NAME.json   written by tests, read at each call; see behaviour
//	lock                  held during each change
//
// An entry appears whole or not at all: it is made under a name that starts with a dot, and renamed.
type storage struct {
	root string
}

type volume struct {
	ID string `json:"id"`
	// Name is the caller's: a second call with it means the same volume.
	Name string `json:"name"`
	// Capacity is in bytes.
	Capacity int64 `json:"capacity"`
	// Source is the snapshot or volume whose content this one began with.
	Source string `json:"source,omitempty"`
	// Behaviour is how calls about this volume behave.
	Behaviour string `json:"behaviour"`
}

type snapshot struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	SourceVolume string `json:"sourceVolume"`
	// Size is what a volume made from it must have at least, in bytes.
	Size    int64     `json:"size"`
	Created time.Time `json:"created"`
	// Group is the group snapshot that it was made in.
	Group     string `json:"group,omitempty"`
	Behaviour string `json:"behaviour"`
	// Secret is a digest of the secrets it was made with: without the same, it cannot be deleted.
	Secret string `json:"secret,omitempty"`
}

type group struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Snapshots []string  `json:"snapshots"`
	Created   time.Time `json:"created"`
	Behaviour string    `json:"behaviour"`
	Secret    string    `json:"secret,omitempty"`
}

// behaviour is how calls behave, as a test wants it. Objects are made with the name of one (the parameter `behaviour`
// of their class, "default" without), and what it says at the time of a call holds for that call.
type behaviour struct {
	// Texts of errors.
	FailCreateVolume   string `json:"failCreateVolume"`
	FailCreateSnapshot string `json:"failCreateSnapshot"`
	FailDeleteSnapshot string `json:"failDeleteSnapshot"`
	// The snapshot exists at once, and the call that made it is answered so many milliseconds later.
	AnswerCreateSnapshotAfter int64 `json:"answerCreateSnapshotAfter"`
	// A snapshot is ready to use so many milliseconds after it was made.
	SnapshotReadyAfter int64 `json:"snapshotReadyAfter"`
	// No snapshot is ready to use.
	SnapshotsPending bool `json:"snapshotsPending"`
}

const defaultBehaviour = "default"

func openStorage(root string) (storage, error) {
	for _, name := range []string{"volumes", "snapshots", "groups", "behaviour"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			return storage{}, err
		}
	}
	return storage{root: root}, nil
}

// lock keeps out all other changes, those of other drivers too, until the function it gives is called.
func (s storage) lock() (func(), error) {
	file, err := os.Create(filepath.Join(s.root, "lock"))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, err
	}
	return func() { file.Close() }, nil
}

func (s storage) behaviour(name string) (behaviour, error) {
	var read behaviour
	bytes, err := os.ReadFile(filepath.Join(s.root, "behaviour", name+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return read, nil
	}
	if err == nil {
		err = json.Unmarshal(bytes, &read)
	}
	if err != nil {
		err = fmt.Errorf("reading behaviour %s: %w", name, err)
	}
	return read, err
}

func behaviourName(parameters map[string]string) (string, error) {
	name, found := parameters["behaviour"]
	if !found {
		return defaultBehaviour, nil
	}
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return "", fmt.Errorf("%q is not the name of a behaviour", name)
	}
	return name, nil
}

// id is the same for every call with that name, so that a repeated call finds what the first made.
func id(kind, name string) string {
	hash := sha256.Sum256([]byte(kind + "/" + name))
	return kind + "-" + hex.EncodeToString(hash[:8])
}

// digest stands for secrets without holding them.
func digest(secrets map[string]string) string {
	if len(secrets) == 0 {
		return ""
	}
	hash := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(secrets)) {
		fmt.Fprintf(hash, "%q=%q\n", key, secrets[key])
	}
	return hex.EncodeToString(hash.Sum(nil))
}

func (s storage) entry(kind, id string) string {
	return filepath.Join(s.root, kind, id)
}

func (s storage) data(kind, id string) string {
	return filepath.Join(s.entry(kind, id), "data")
}

// read is the entry of that id, or nil when there is none.
func read[T any](s storage, kind, file, id string) (*T, error) {
	// Ids come from users, in pre-provisioned contents.
	if id == "" || id != filepath.Base(id) || strings.HasPrefix(id, ".") {
		return nil, nil
	}
	bytes, err := os.ReadFile(filepath.Join(s.entry(kind, id), file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := new(T)
	if err := json.Unmarshal(bytes, found); err != nil {
		return nil, fmt.Errorf("reading %s %s: %w", kind, id, err)
	}
	return found, nil
}

func (s storage) volume(id string) (*volume, error) {
	return read[volume](s, "volumes", "volume.json", id)
}

func (s storage) snapshot(id string) (*snapshot, error) {
	return read[snapshot](s, "snapshots", "snapshot.json", id)
}

func (s storage) group(id string) (*group, error) {
	return read[group](s, "groups", "group.json", id)
}

// snapshots are all there are, sorted by id.
func (s storage) snapshots() ([]*snapshot, error) {
	entries, err := os.ReadDir(filepath.Join(s.root, "snapshots"))
	if err != nil {
		return nil, err
	}
	var all []*snapshot
	for _, entry := range entries {
		found, err := s.snapshot(entry.Name())
		if err != nil {
			return nil, err
		}
		if found != nil {
			all = append(all, found)
		}
	}
	return all, nil
}

// create makes an entry; fill, unless nil, makes its data.
func (s storage) create(kind, file, id string, value any, fill func(data string) error) error {
	temporary := s.entry(kind, "."+id)
	if err := os.RemoveAll(temporary); err != nil {
		return err
	}
	if err := os.Mkdir(temporary, 0o755); err != nil {
		return err
	}
	if fill != nil {
		if err := fill(filepath.Join(temporary, "data")); err != nil {
			return err
		}
	}
	bytes, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(temporary, file), bytes, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, s.entry(kind, id))
}

// empty makes a directory that pods of any user write into.
func empty(data string) error {
	if err := os.Mkdir(data, 0o777); err != nil {
		return err
	}
	// Whatever the umask says.
	return os.Chmod(data, 0o777)
}

// copyOf makes a copy with owners, modes and times.
func copyOf(from string) func(data string) error {
	return func(data string) error { return command("cp", "-a", from, data) }
}

// remove takes an entry away; none is as good.
func (s storage) remove(kind, id string) error {
	if id == "" || id != filepath.Base(id) {
		return nil
	}
	temporary := s.entry(kind, "."+id)
	if err := os.RemoveAll(temporary); err != nil {
		return err
	}
	if err := os.Rename(s.entry(kind, id), temporary); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return os.RemoveAll(temporary)
}

func command(name string, arguments ...string) error {
	output, err := exec.Command(name, arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, strings.TrimSpace(string(output)))
	}
	return nil
}
