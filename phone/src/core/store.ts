// What the app keeps on this device, in IndexedDB. No secret is in it that is not sealed (vault.ts).

const NAME = "engram";
const VERSION = 1;
const STORES = ["identities", "gateways", "purchases", "seen", "settings"] as const;
export type StoreName = (typeof STORES)[number];

export interface Store {
  get<T>(store: StoreName, key: string): Promise<T | undefined>;
  all<T>(store: StoreName): Promise<T[]>;
  put(store: StoreName, key: string, value: unknown): Promise<void>;
  /** Write a value unless one of the store's stands against it: no window writes in between. Return whether it did. */
  putUnless<T>(store: StoreName, key: string, value: unknown, against: (kept: T) => boolean): Promise<boolean>;
  remove(store: StoreName, key: string): Promise<void>;
  /** Forget everything. */
  clear(): Promise<void>;
}

export async function open(): Promise<Store> {
  const database = await new Promise<IDBDatabase>((resolve, reject) => {
    const request = indexedDB.open(NAME, VERSION);
    request.onupgradeneeded = () => {
      for (const store of STORES) {
        if (!request.result.objectStoreNames.contains(store)) request.result.createObjectStore(store);
      }
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("storage cannot be opened"));
    request.onblocked = () => reject(new Error("another window holds an older version of the storage"));
  });
  database.onversionchange = () => database.close();
  const run = <T>(store: StoreName, mode: IDBTransactionMode, work: (of: IDBObjectStore) => IDBRequest<T>): Promise<T> =>
    new Promise((resolve, reject) => {
      const transaction = database.transaction(store, mode, { durability: "strict" });
      const request = work(transaction.objectStore(store));
      // A write counts once it is on the disk, not once it is requested.
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error ?? new Error("the storage refused to write"));
    });
  return {
    get: (store, key) => run(store, "readonly", (of) => of.get(key)),
    all: (store) => run(store, "readonly", (of) => of.getAll()),
    put: async (store, key, value) => void (await run(store, "readwrite", (of) => of.put(value, key))),
    putUnless: <T>(store: StoreName, key: string, value: unknown, against: (kept: T) => boolean) =>
      new Promise<boolean>((resolve, reject) => {
        const transaction = database.transaction(store, "readwrite", { durability: "strict" });
        const of = transaction.objectStore(store);
        let written = false;
        const kept = of.getAll() as IDBRequest<T[]>;
        kept.onsuccess = () => {
          if (kept.result.some(against)) return;
          of.put(value, key);
          written = true;
        };
        transaction.oncomplete = () => resolve(written);
        transaction.onabort = () => reject(transaction.error ?? new Error("the storage refused to write"));
      }),
    remove: async (store, key) => void (await run(store, "readwrite", (of) => of.delete(key))),
    clear: async () => {
      for (const store of STORES) await run(store, "readwrite", (of) => of.clear());
    },
  };
}
