export function appFiles(dist?: string): Promise<string[]>;
export function buildServiceWorker(dist?: string): Promise<void>;
