export function pageSizes(dist?: string): Promise<{ path: string; raw: number; brotli: number }[]>;
