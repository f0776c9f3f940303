const REASONS: Record<string, string> = {
  ENOENT: 'there is no such file',
  ENOTDIR: 'a part of its path is not a folder',
  EISDIR: 'it is a folder',
  EACCES: 'you may not read it',
  EPERM: 'you may not read it',
  ELOOP: 'its symbolic links form a loop',
  ENAMETOOLONG: 'the name is too long for this system',
  EMFILE: 'this process has too many files open',
  ENFILE: 'this machine has too many files open',
  EIO: 'the disk could not be read',
  ERR_INVALID_ARG_VALUE: 'no file can have this name',
};

/** Why a file or a folder could not be read, in words: the system's text names calls and repeats the path. */
export function systemReason(error: unknown): string {
  const { code = '', message } = error as NodeJS.ErrnoException;
  return Object.hasOwn(REASONS, code) ? (REASONS[code] as string) : message.replace(/\.$/, '');
}
